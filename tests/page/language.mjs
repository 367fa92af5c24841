// The console page in both languages, by keyboard alone, on a small screen and on a wall, against the canned gateway.
// `node language.mjs ROOT SHOTS`, as page.mjs.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { address, end, ID, incident, incidents, iso, posts, root, said, send } from './canned.mjs';
import { checks, complaintsOf, conclude, launch } from './checks.mjs';

const table = async (name) => (await import(pathToFileURL(join(root, `src/api/page/${name}.js`)))).default;
const [en, ur] = [await table('en'), await table('ur')];
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1366, height: 768 }, locale: 'ur-PK' });
const page = await context.newPage();
const complaints = complaintsOf(page);
const { check, count, text, shot } = checks(page);

/** Every key of a table, `kind.panic` for those below another; what has no such key in `other` is missing there. */
const keys = (one, at = '') => Object.entries(one).flatMap(([key, value]) => (typeof value === 'object' && !Array.isArray(value) ? [`${at}${key}`, ...keys(value, `${at}${key}.`)] : [`${at}${key}`]));
const value = (one, key) => key.split('.').reduce((at, part) => at?.[part], one);
const holes = (words) => (typeof words === 'string' ? words.match(/\{\w+\}/g) ?? [] : []).sort().join();
const told = {
  incident: ID, kind: 'panic', button: incident.button, pressed_at: incident.pressed_at.at, camera: null,
  call: { address: `/v1/incidents/${ID}/call`, state: 'ringing', since: iso(Date.now()), rings: 1, again: null, group: 'operators', handing_over: null, unit: { kind: 'speaker', voice: true }, speaker: null, listeners: [], answered_at: null, ended: null, spoke: [] },
};
incidents.push(incident);
said.calls = [told];

/** What is wider than its box, or sticks out of the window. */
const clipped = () => page.evaluate(() => [...document.querySelectorAll('button, .fact, .word, .act, kbd')].filter((one) => {
  if (!one.offsetParent || one.closest('#list, #ringing, .scroll')) return false;
  const at = one.getBoundingClientRect();
  return one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflow !== 'hidden' && one.matches('button') || at.left < -1 || at.right > innerWidth + 1 || at.bottom > innerHeight + 1;
}).map((one) => one.outerHTML.slice(0, 120)));
const scrolls = () => page.evaluate(() => document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight || document.body.scrollHeight > innerHeight);
/** Puts the focus on the first match by Tab alone; `false` when it cannot be reached so. */
async function tabTo(selector, most = 120) {
  for (let i = 0; i < most; i++) {
    if (await page.evaluate((one) => document.activeElement.matches(one), selector)) return true;
    await page.keyboard.press('Tab');
  }
  return false;
}

try {
  await check('every text of one language is in the other, with the same blanks', async () => {
    const lacking = [...keys(en).filter((key) => value(ur, key) === undefined || holes(value(ur, key)) !== holes(value(en, key))), ...keys(ur).filter((key) => value(en, key) === undefined)];
    return lacking.length === 0 && en.help.length === ur.help.length && en.help.every(([key], i) => key === ur.help[i][0]) || lacking;
  });

  await page.goto(address);
  await check('a browser that speaks Urdu is spoken to in Urdu, from right to left', async () => (await page.getAttribute('html', 'dir')) === 'rtl' && (await page.getAttribute('html', 'lang')) === 'ur' && (await text('#tab-incidents')).includes('واقعات'));
  await page.locator(`.row[data-id="${ID}"] .pick`).click();
  await check('the list stands on the right, the panel on the left', async () => { const [side, panel] = [await page.locator('#side').boundingBox(), await page.locator('#incident').boundingBox()]; return side.x > 1000 && panel.x === 0; });
  await check('media time goes from left to right all the same', async () => page.$eval('.controls', (one) => getComputedStyle(one).direction === 'ltr'));
  await check('so do times and ids', async () => (await count('.steps bdi[dir=ltr]')) > 0 && (await count('.head bdi.id[dir=ltr]')) === 1);
  await check('what happened is told in Urdu', async () => (await text('.history')).includes('بٹن دبا'));
  await check('nothing scrolls as a whole at 1366x768', async () => !(await scrolls()));
  await check('nothing is clipped', async () => { const found = await clipped(); return found.length === 0 || found; });
  await shot('language-1-urdu');
  await page.keyboard.press('ArrowDown');
  await check('arrows still go down the list', async () => page.evaluate(() => Boolean(document.activeElement.closest('#list'))));

  await page.locator('#language').click();
  await check('the switch changes it at once', async () => (await page.getAttribute('html', 'dir')) === 'ltr' && (await text('#tab-incidents')).includes('Incidents') && (await text('.call .word')).includes('Ringing') && (await text('.ring-card .answer')).includes('Answer'));
  await check('what is chosen stays', async () => (await text('#incident h2')) === 'Saddar Bazaar, gate 1' && (await count('.tile')) === 4);
  await page.reload();
  await check('and it is remembered', async () => (await page.getAttribute('html', 'lang')) === 'en');

  // ---- By keyboard alone

  await check('the page is up', async () => (await count('.ring-card')) === 1);
  await check('Tab reaches the switches', async () => tabTo('#help'));
  await check('what has the focus shows it', async () => page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle === 'solid' && parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2));
  await page.keyboard.press('Enter');
  await check('a dialog opens and Esc closes it', async () => page.isVisible('#dialog[open] dl'));
  await page.keyboard.press('Escape');
  await check('Tab reaches the card that rings', async () => tabTo('.ring-card .look'));
  await page.keyboard.press('Enter');
  await check('Enter opens it', async () => page.isVisible('#incident'));
  await check('Tab reaches Answer', async () => tabTo('.ring-card .answer'));
  await check('the list', async () => tabTo('#list .pick'));
  await check('the map', async () => tabTo('#map > svg'));
  await check('the call', async () => tabTo('.call-act.answer'));
  await check('each picture', async () => tabTo('.tile[data-camera=cam-1]'));
  await page.keyboard.press('Enter');
  await check('which Enter makes large', async () => (await page.getAttribute('.tile.main', 'data-camera')) === 'cam-1');
  await check('the time line', async () => tabTo('.bar input'));
  await page.keyboard.press('Home');
  await check('which keys move, before the press too', async () => { const offset = await text('.time b'); return offset.startsWith('−') || offset; });
  await check('the actions', async () => tabTo('.act.seen'));
  await page.evaluate(() => localStorage.setItem('chowki-operator', 'Ayesha'));
  await page.keyboard.press('Enter');
  await check('which Enter does', async () => posts.some(([path]) => path.endsWith('/seen')));
  await check('ringing is announced', async () => (await page.getAttribute('#ringing', 'aria-live')) === 'assertive');
  await check('every button has a name', async () => { const bare = await page.$$eval('button', (all) => all.filter((one) => one.offsetParent && !one.textContent.trim() && !one.getAttribute('aria-label')).map((one) => one.outerHTML)); return bare.length === 0 || bare; });
  await check('a keyboard of another script has the same keys', async () => {
    await page.evaluate(() => document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'ع', code: 'KeyU', bubbles: true })));
    return (await page.getAttribute('html', 'lang')) === 'ur';
  }, 2000);
  await page.keyboard.press('u');
  await check('nothing scrolls or is clipped in English either', async () => { const found = await clipped(); return !(await scrolls()) && found.length === 0 || found; });

  said.status = { ...said.status, journal: 'damaged: 2 entries that had been synced were gone at the start' };
  send('status', said.status);
  await check('a journal that writes is not said to keep presses waiting', async () => (await text('#alarm')).includes('2 entries') && !(await text('#alarm')).includes('acknowledged'));
  said.status = { ...said.status, journal: 'slow: the disk does not answer' };
  send('status', said.status);
  await check('one that does not is', async () => (await text('#alarm')).includes('acknowledged'));

  // ---- A wall

  await page.setViewportSize({ width: 3840, height: 2160 });
  await page.reload();
  await page.locator(`.row[data-id="${ID}"] .pick`).click();
  await check('a wall has larger type', async () => (await page.$eval('html', (one) => parseFloat(getComputedStyle(one).fontSize))) >= 20);
  await check('and more cameras at once, beside the large one', async () => (await count('.tile')) === 5 && (async () => { const [large, second] = [await page.locator('.tile.main').boundingBox(), await page.locator('.tile:not(.main)').first().boundingBox()]; return second.x >= large.x + large.width && large.width > 1200; })());
  await check('without scrolling', async () => !(await scrolls()));
  await shot('language-2-wall');
  const own = complaints.filter((one) => !/ERR_INCOMPLETE_CHUNKED_ENCODING|network error/i.test(one));
  await check('the page complains of nothing', async () => own.length === 0 || own);
} finally {
  await browser.close();
  end();
}
conclude();
