// Chromium, and the one way in which the tests of the page say what holds: each check is a line.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const shots = process.argv[3];
if (shots) mkdirSync(shots, { recursive: true });
let failures = 0;

/** Fake microphones and cameras, and WebRTC over loopback. */
export const MEDIA = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns', '--allow-loopback-in-peer-connection'];

export const launch = (more = []) => chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', ...more] });

/** What the page's console complained of, but for the answers that a test itself gives. */
export function complaintsOf(page) {
  const complaints = [];
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type()) && !/status of (401|403|404|409|503)/.test(message.text())) complaints.push(message.text()); });
  page.on('pageerror', (error) => complaints.push(String(error)));
  return complaints;
}

/** For one page: `check(sentence, test)` waits until `test()` is true; `count`, `text` and `shot` look at it. */
export function checks(page) {
  return {
    async check(sentence, test, limit = Number(process.env.LIMIT ?? 15000)) {
      const until = Date.now() + limit;
      let seen;
      do {
        seen = await test().catch((error) => error);
        if (seen === true) {
          console.log(`ok    ${sentence}`);
          return;
        }
        await new Promise((rest) => setTimeout(rest, 100));
      } while (Date.now() < until);
      failures += 1;
      console.log(`FAIL  ${sentence}: ${seen instanceof Error ? seen.message : JSON.stringify(seen)}`);
      if (shots) await page.screenshot({ path: join(shots, 'failure.png') });
    },
    count: (selector) => page.locator(selector).count(),
    text: (selector) => page.locator(selector).first().textContent(),
    shot: (name) => shots && page.screenshot({ path: join(shots, `${name}.png`) }),
  };
}

/** Says how it went, and ends the process. */
export function conclude() {
  console.log(failures ? `${failures} failed` : 'all hold');
  process.exit(failures ? 1 : 0);
}
