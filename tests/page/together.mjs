// An operator's page and a unit's page at a real gateway, from the press until the case is closed, by keyboard alone.
// `node together.mjs URL SHOTS BUTTON TOKEN [PAGE]`: exit 0 when all holds; each check is a line. PAGE is a folder from which the
// files of the pages come instead of from the gateway.
import { join } from 'node:path';
import { checks, complaintsOf, conclude, launch, MEDIA } from './checks.mjs';

const [base, , button, token, folder] = process.argv.slice(2);
const browser = await launch(MEDIA);
const context = await browser.newContext({ viewport: { width: 1366, height: 768 } });
if (folder) await context.route('**/page/*', (route) => route.fulfill({ path: join(folder, route.request().url().split('/').pop()) }));
const unit = await context.newPage();
const desk = await context.newPage();
const [atUnit, atDesk] = [checks(unit), checks(desk)];
const complaints = [complaintsOf(unit), complaintsOf(desk)];
const shows = () => unit.getAttribute('body', 'data-shows');
const words = () => atDesk.text('.call .word');
const energy = (page, selector) => page.$eval(selector, (one) => one.getVideoPlaybackQuality().totalVideoFrames);
const key = async (name) => {
  await desk.bringToFront();
  await desk.keyboard.press(name);
};

try {
  await unit.goto(`${base}/unit/${button}#${token}`);
  await atUnit.check('the unit is ready', async () => (await shows()) === 'ready');
  await desk.addInitScript(() => localStorage.setItem('chowki-operator', 'Ayesha'));
  await desk.goto(base);
  await atDesk.check('the operator waits', async () => (await atDesk.count('.fact.good')) > 0);

  await unit.bringToFront();
  await unit.keyboard.press('Enter');
  const pressed = Date.now();
  await atUnit.check('a press calls, and is recorded', async () => ['calling', 'reached'].includes(await shows()) && (await unit.isVisible('#recorded')));
  await atDesk.check('it rings at the desk', async () => (await atDesk.count('.ring-card .answer')) === 1);
  console.log(`      rang after ${Date.now() - pressed} ms`);
  await desk.bringToFront();
  await atDesk.check('with the place live in the card', async () => (await atDesk.count('.ring-card[data-live=live]')) === 1);
  await atDesk.shot('together-1-rings');

  await key('a');
  const asked = Date.now();
  await atDesk.check('A answers', async () => (await words()) === 'You are through');
  console.log(`      through after ${Date.now() - asked} ms`);
  await atDesk.check('the unit is seen by the call itself', async () => (await atDesk.count('.tile.main.is-called')) === 1 && (await energy(desk, '.tile.main video.called')) > 5);
  await atUnit.check('the unit says that it is answered', async () => (await shows()) === 'answered');
  await key('k');
  await unit.bringToFront();
  await atUnit.check('and shows the operator', async () => (await unit.isVisible('#operator')) && (await energy(unit, '#operator')) > 5);
  await atUnit.shot('together-2-unit');
  await desk.bringToFront();
  await atDesk.check('the bar of the call is one line of buttons', async () => new Set(await desk.$$eval('.call-act', (all) => all.filter((one) => one.offsetParent).map((one) => one.offsetTop))).size === 1);
  await atDesk.shot('together-3-through');

  await key('h');
  await atUnit.check('H holds, and the unit is told to wait', async () => (await shows()) === 'hold' && (await words()) === 'On hold');
  await key('h');
  await atUnit.check('H again goes on', async () => (await shows()) === 'answered' && (await words()) === 'You are through');

  await desk.reload();
  await atDesk.check('a page loaded anew is back in the call', async () => (await words()) === 'You are through' && (await desk.getAttribute('.call', 'data-connection')) === 'connected' && (await atDesk.count('.tile.main.is-called')) === 1);
  await unit.reload();
  await atDesk.check('so is the unit', async () => (await shows()) === 'answered' && (await words()) === 'You are through', 30000);

  await key('x');
  await key('Enter');
  await atDesk.check('X hangs up', async () => (await words()).startsWith('Call ended'));
  await atUnit.check('the unit is told', async () => (await shows()) === 'ended');
  await unit.bringToFront();
  await unit.waitForTimeout(600);
  await unit.keyboard.press('Enter');
  await atDesk.check('pressed again it rings again, and says so', async () => (await atDesk.text('.call .note')).includes('Pressed again'));
  await key('a');
  await atUnit.check('and is answered again', async () => (await shows()) === 'answered' && (await words()) === 'You are through');
  await key('d');
  await atUnit.check('help is coming, the unit is told', async () => unit.isVisible('#coming'));
  await key('c');
  await key('Enter');
  await atUnit.check('closed, it is over', async () => ['ended', 'ready'].includes(await shows()));
  await atDesk.check('and this operator is in no call', async () => !(await desk.isVisible('.call-act.hangUp')) && !(await desk.isVisible('#oncall')));
  await atUnit.check('then the unit is ready once more', async () => (await shows()) === 'ready', 30000);
  const own = complaints.flat().filter((one) => !/ERR_INCOMPLETE_CHUNKED_ENCODING|network error/i.test(one));
  await atDesk.check('the pages complain of nothing', async () => own.length === 0 || own);
} finally {
  await browser.close();
}
conclude();
