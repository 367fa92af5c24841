// Plays a file of the gateway in a browser's own video element, goes to moments in it, and prints what was seen.
// node video.mjs URL PATH MOMENT...
import { chromium } from 'playwright-core';

const [base, path, ...moments] = process.argv.slice(2);
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--autoplay-policy=no-user-gesture-required'];
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
const page = await (await browser.newContext()).newPage();
await page.goto(`${base}/healthz`);
const seen = await page.evaluate(async ({ path, moments }) => {
  const video = Object.assign(document.createElement('video'), { muted: true, src: path });
  document.body.append(video);
  const once = (name) => new Promise((done, failed) => {
    video.addEventListener(name, done, { once: true });
    video.addEventListener('error', () => failed(new Error(`${video.error.code}: ${video.error.message}`)), { once: true });
    setTimeout(() => failed(new Error(`no ${name}`)), 15000);
  });
  await once('loadedmetadata');
  const result = { duration: video.duration, size: [video.videoWidth, video.videoHeight], shown: [] };
  for (const moment of moments) {
    const sought = once('seeked');
    video.currentTime = moment;
    await sought;
    const frame = await new Promise((done) => { video.requestVideoFrameCallback((_, { mediaTime }) => done(mediaTime)); video.play(); });
    result.shown.push(frame);
    video.pause();
  }
  return result;
}, { path, moments: moments.map(Number) });
console.log(JSON.stringify(seen));
await browser.close();
