// The page of a unit with a screen in a real browser, against the canned gateway. `node unit.mjs ROOT SHOTS`, as page.mjs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { address, end, posts, root, said, send, streams } from './canned.mjs';
import { checks, complaintsOf, conclude, launch, MEDIA } from './checks.mjs';
import { peer } from './peer.mjs';

const browser = await launch(MEDIA);
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const far = await peer(context, address);
const page = await context.newPage();
const complaints = complaintsOf(page);
const { check, shot } = checks(page);
let [sessions, lastPeer, offer, disk, token] = [0, null, '', true, ''];
const presses = [];
said.post = (request, path, body) => {
  token = request.headers.authorization;
  if (path === '/v1/units/b-01/session') {
    offer = body;
    return far.answer(body).then(({ sdp, id }) => {
      [lastPeer, sessions] = [id, sessions + 1];
      return { code: 201, headers: { 'Content-Type': 'application/sdp', Location: `${path}/s${sessions}` }, text: sdp };
    });
  }
  if (path === '/v1/units/b-01/press') {
    presses.push(JSON.parse(body));
    return disk ? { text: '{"state": "recorded"}' } : { code: 503, text: '{"detail": "it is not on disk"}' };
  }
  posts.push([path, body]);
  return { code: 404 };
};
const played = [];
await page.exposeFunction('wasPlayed', (name) => played.push(name));
await page.addInitScript(() => {
  const { play } = HTMLAudioElement.prototype;
  const fetched = window.fetch;
  const names = new Map();
  window.fetch = async (...all) => {
    const answer = await fetched(...all);
    const [, name] = /prompts\/(\w+)\.wav/.exec(String(all[0])) ?? [];
    if (!name) return answer;
    const { blob } = answer;
    answer.blob = async () => {
      const own = await blob.call(answer);
      names.set(own, name);
      return own;
    };
    return answer;
  };
  const made = URL.createObjectURL;
  URL.createObjectURL = (what) => {
    const url = made(what);
    if (names.has(what)) names.set(url, names.get(what));
    return url;
  };
  HTMLMediaElement.prototype.play = function playing() {
    if (names.has(this.src)) window.wasPlayed(names.get(this.src));
    return play.call(this);
  };
});
const shows = () => page.getAttribute('body', 'data-shows');
const visible = (what) => page.isVisible(what);
const tell = (state, call, speaking = false, incident = 'i-1') => send('state', { incident, state, call, speaking, reached: ['delivered', 'seen', 'answered', 'dispatched'].includes(state) });

try {
  await page.goto(`${address}unit/b-01#secret`);
  await check('the token leaves the address and stays with the page', async () => !page.url().includes('secret') && (await page.evaluate(() => localStorage.getItem('chowki-unit b-01'))) === 'secret');
  await check('its camera and microphone are sent at once', async () => { const seen = await far.received(lastPeer); return (seen.video > 5 && seen.audio > 5 && seen.codec === 'video/H264') || seen; });
  await check('with its token', async () => token === 'Bearer secret');
  await check('both ways, sound first', async () => JSON.stringify(offer.match(/^m=\w+/gm)) === '["m=audio","m=video"]' && offer.match(/^a=sendrecv/gm).length === 2 || offer);
  send('state', { incident: null, state: null, call: null, speaking: false, reached: false });
  await check('it is ready', async () => (await shows()) === 'ready');
  await shot('unit-1-ready');

  await check('its page is kept for when the gateway is away', async () => page.evaluate(async () => (await (await caches.open('chowki-unit')).keys()).length > 10));

  disk = false;
  await page.keyboard.press('Enter');
  await check('a press is being sent', async () => (await shows()) === 'calling' && presses.length > 0);
  await check('again and again, as one press', async () => presses.length > 2 && new Set(presses.map((one) => one.press)).size === 1);
  await check('and not called recorded', async () => !(await visible('#recorded')));
  const [{ press: first }] = presses;
  await page.reload();
  const before = presses.length;
  await check('it is sent on after a reload, the same', async () => presses.length > before && presses.at(-1).press === first);
  send('state', { incident: null, state: null, call: null, speaking: false, reached: false });
  disk = true;
  await check('once it is on disk that is said', async () => (await visible('#recorded')) && presses.at(-1).press === first);
  await check('and heard', async () => played.includes('pressed') || played);
  const sent = presses.length;
  tell('recorded', 'ringing');
  await check('it calls', async () => (await shows()) === 'calling');
  tell('delivered', 'ringing');
  await check('it says that the call has reached somebody when it has', async () => (await shows()) === 'reached' && played.includes('reached'));
  tell('delivered', 'answered', false);
  await check('and not that it is answered before the way stands', async () => (await shows()) === 'reached');
  tell('answered', 'answered', true);
  await check('answered, with the operator seen', async () => (await shows()) === 'answered' && (await visible('#operator')) && played.includes('answered'));
  await shot('unit-2-answered');
  tell('answered', 'held');
  await check('on hold', async () => (await shows()) === 'hold' && played.includes('hold') && !(await visible('#operator')));
  tell('answered', 'ringing');
  await check('cut, and calling again', async () => (await shows()) === 'lost' && played.includes('lost'));
  tell('dispatched', 'answered', true);
  await check('help is coming is told beside the call', async () => (await shows()) === 'answered' && (await visible('#coming')));
  tell('dispatched', 'ended');
  await check('and is what is told after it', async () => (await shows()) === 'coming');
  await shot('unit-3-coming');
  await page.mouse.click(...await page.$eval('#press', (one) => { const at = one.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; }));
  await check('a touch presses once more, with an id of its own', async () => presses.length === sent + 1 && presses.at(-1).press !== first);

  for (const stream of streams) stream.destroy();
  const had = sessions;
  await far.cut(lastPeer);
  await check('a line that was cut is made anew', async () => sessions > had && (await far.received(lastPeer)).video > 0, 30000);
  await context.route('**/v1/units/**', (route) => route.abort());
  for (const stream of streams) stream.destroy();
  await check('a gateway that cannot be reached is told', async () => (await shows()) === 'offline');
  await page.evaluate(() => { const { now } = Date; Date.now = () => now() - 3600000; });
  await page.evaluate(() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; });
  await page.keyboard.press(' ');
  await check('and that the press is kept, without storage and with the clock set back', async () => (await shows()) === 'unsent' && !(await visible('#recorded')));
  await context.unroute('**/v1/units/**');
  const kept = presses.length;
  await check('until it gets through', async () => presses.length > kept, 30000);
  await check('at last it has ended', async () => {
    tell('answered', 'answered', true);
    tell('closed', 'ended', false);
    return (await shows()) === 'ended';
  }, 30000);
  await check('nothing scrolls', async () => page.evaluate(() => document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth));
  await check('an answered call without a line is lost, and a screen that is not let in says so first', async () => page.evaluate(async () => {
    const { shows } = await import('/page/unitstate.js');
    const told = { incident: 'i-1', state: 'answered', call: 'answered', speaking: true };
    return shows({ connected: true, told, up: true }) === 'answered' && shows({ connected: true, told, up: false }) === 'lost' && shows({ connected: false, refused: true, pending: {}, told: null }) === 'refused';
  }));
  await check('every state has its picture', async () => (await page.evaluate(async () => { const { WORDS } = await import('/page/unitstate.js'); return Object.keys(WORDS).filter((one) => !['starting', 'unsent', 'refused'].includes(one)); })).every((one) => readFileSync(join(root, `src/api/page/unit-${one}.svg`), 'utf8').includes('<svg')));
  said.token = 'another';
  await page.reload();
  await check('a token that is not taken is told', async () => (await shows()) === 'refused');
  await page.evaluate(() => { location.hash = 'another'; });
  await check('until one is put behind its address that is', async () => !page.url().includes('#') && (await shows()) === 'starting' && token === 'Bearer another');
  const own = complaints.filter((one) => !/ERR_FAILED|ERR_INCOMPLETE_CHUNKED_ENCODING|network error/i.test(one));
  await check('the page complains of nothing', async () => own.length === 0 || own);
} finally {
  await browser.close();
  end();
}
conclude();
