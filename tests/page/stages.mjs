// The operator's page of a real gateway, watched from outside for scripts/bench/call: when it was told of a call, rang, asked for
// pictures, had an answer, was connected and showed the first one. The page itself is as every operator has it.
// node stages.mjs URL: says `open` when it waits. Each line on standard input is answered when a call has rung and its first picture
// is there, with milliseconds of the machine's monotonic clock; an empty page again is waited for before the next.

import { createInterface } from 'node:readline';
import { MEDIA, launch } from './checks.mjs';

const browser = await launch(MEDIA);
const page = await (await browser.newContext({ viewport: { width: 1366, height: 768 } })).newPage();

await page.addInitScript(() => {
  const seen = {};
  window.stages = seen;
  const mark = (what) => { seen[what] ??= performance.now(); };
  const text = TextDecoderStream;
  window.TextDecoderStream = class extends text {
    get readable() {
      const look = new TransformStream({ transform(part, on) { if (part.includes('"ringing"')) mark('told'); on.enqueue(part); } });
      return super.readable.pipeThrough(look);
    }
  };
  const { fetch } = window;
  window.fetch = async (path, options) => {
    const offers = String(path).endsWith('/whep');
    if (offers) mark('asked');
    const answer = await fetch(path, options);
    if (offers && answer.status === 201) mark('answered');
    return answer;
  };
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function set(...all) {
    this.addEventListener('connectionstatechange', () => this.connectionState === 'connected' && mark('connected'));
    return setRemoteDescription.apply(this, all);
  };
  new MutationObserver(() => {
    const card = document.querySelector('.ring-card');
    if (!card || seen.rang) return;
    mark('rang');
    requestAnimationFrame(() => mark('painted'));
    card.querySelector('video').requestVideoFrameCallback((now, { expectedDisplayTime }) => { seen.picture ??= Math.max(now, expectedDisplayTime); });
  }).observe(document, { childList: true, subtree: true });
});

await page.goto(process.argv[2]);
await page.waitForFunction(() => document.querySelector('.fact.good'));
console.log('open');

const monotonic = () => Number(process.hrtime.bigint()) / 1e6;

/** What to add to the page's milliseconds: of many readings the one that was quickest. */
async function shift() {
  let best = { took: Infinity };
  for (let i = 0; i < 30; i += 1) {
    const before = monotonic();
    const at = await page.evaluate(() => performance.now());
    const after = monotonic();
    if (after - before < best.took) best = { took: after - before, shift: (before + after) / 2 - at };
  }
  return best.shift;
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'again') {
    await page.waitForFunction(() => !document.querySelector('.ring-card'), null, { timeout: 20_000 });
    await page.evaluate(() => Object.keys(window.stages).forEach((what) => delete window.stages[what]));
    console.log('{}');
    continue;
  }
  await page.waitForFunction(() => window.stages.picture, null, { timeout: 20_000 });
  const [seen, more] = [await page.evaluate(() => window.stages), await shift()];
  console.log(JSON.stringify(Object.fromEntries(Object.entries(seen).map(([what, at]) => [what, at + more]))));
}
await browser.close();
