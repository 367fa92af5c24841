// Waits at the console page of a real gateway for a press, and until the place is seen live in the card that rings.
// node ringing.mjs URL SHOT: says `open` when it waits, then prints what came.

import { chromium } from 'playwright-core';

const [base, shot] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium', headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-features=WebRtcHideLocalIpsWithMdns', '--allow-loopback-in-peer-connection'],
});
const page = await (await browser.newContext({ viewport: { width: 1366, height: 768 } })).newPage();
const complaints = [];
page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complaints.push(message.text()); });
page.on('pageerror', (error) => complaints.push(String(error)));
await page.goto(base);
await page.waitForFunction(() => document.querySelector('.fact.good'), null, { timeout: 10000 });
console.log('open');
const card = page.locator('#ringing .ring-card');
await card.waitFor({ timeout: 15000 });
const rang = Date.now();
await page.waitForSelector('.ring-card[data-live=live]', { timeout: 15000 });
const seen = Date.now();
await page.waitForTimeout(1500);
const frames = await page.evaluate(() => document.querySelector('.ring-card video').getVideoPlaybackQuality().totalVideoFrames);
const title = await page.title();
await card.click();
const chosen = await page.locator('#incident h2').textContent();
await page.waitForSelector('#incident .tile.main.is-live', { timeout: 10000 });
await page.waitForTimeout(1500);
if (shot) await page.screenshot({ path: shot });
const large = await page.evaluate(() => document.querySelector('.tile.main video.now').getVideoPlaybackQuality().totalVideoFrames);
// A step back in time is evidence; L is now again.
await page.keyboard.press('p');
await page.waitForSelector('#incident .tile.main:not(.is-live)', { timeout: 10000 });
await page.keyboard.press('l');
await page.waitForSelector('#incident .tile.main.is-live', { timeout: 10000 });
console.log(JSON.stringify({ rang, seen, frames, large, title, chosen, complaints }));
await page.waitForSelector('#ringing[hidden]', { state: 'attached', timeout: 20000 });
console.log('silent');
await browser.close();
process.exit(0);
