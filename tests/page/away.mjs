// The page of a unit with a screen whose gateway goes away: it loads anew all the same, says so, and keeps a press until the gateway
// is back. `node away.mjs URL SHOTS BUTTON TOKEN`: says `gone?` and `back?` when the gateway is to go and to come back, and waits for
// a line on standard input each time.
import { createInterface } from 'node:readline';
import { checks, complaintsOf, conclude, launch, MEDIA } from './checks.mjs';

const [base, , button, token] = process.argv.slice(2);
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const browser = await launch(MEDIA);
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
complaintsOf(page);
const { check, shot } = checks(page);
const shows = () => page.getAttribute('body', 'data-shows');
const ask = async (what) => {
  console.log(what);
  await answers.next();
};

try {
  await page.goto(`${base}/unit/${button}#${token}`);
  await check('the unit is ready', async () => (await shows()) === 'ready');
  await check('its page is kept', async () => page.evaluate(async () => {
    await navigator.serviceWorker.ready;
    return Boolean(navigator.serviceWorker.controller) && (await (await caches.open('chowki-unit')).keys()).length > 10;
  }));
  await ask('gone?');
  await page.reload();
  await check('without a gateway the page is there, and says that it is cut off', async () => (await shows()) === 'offline');
  await check('with its picture', async () => page.$eval('#picture', (one) => one.complete && one.naturalWidth > 0));
  await page.keyboard.press('Enter');
  await check('a press is taken, and not called recorded', async () => ['unsent', 'offline'].includes(await shows()) && !(await page.isVisible('#recorded')));
  await shot('away-1');
  // Also one who pulls the plug of the screen itself is not forgotten.
  await page.reload();
  await page.waitForTimeout(1000);
  await ask('back?');
  await check('when the gateway is back the press arrives, and is recorded', async () => ['calling', 'reached'].includes(await shows()) && page.isVisible('#recorded'), 30000);
  await shot('away-2');
} finally {
  await browser.close();
}
conclude();
