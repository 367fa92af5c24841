// The console page in a real browser, against a gateway of canned answers and real media. `node page.mjs ROOT SHOTS`:
// ROOT is the repository, SHOTS a folder for screenshots. Exit 0 when all holds; each check is a line.
import { address, button, buttons, condition, end, ID, incident, incidents, iso, place, posts, said, send, streams } from './canned.mjs';
import { checks, complaintsOf, conclude, launch } from './checks.mjs';

const browser = await launch();
const page = await (await browser.newContext({ viewport: { width: 1366, height: 768 } })).newPage();
const complaints = complaintsOf(page);
const { check, count, text, shot } = checks(page);
const videos = () => page.$$eval('#incident video.evidence', (all) => all.map((v) => ({ t: v.currentTime, ready: v.readyState, w: v.videoWidth, paused: v.paused })));

try {
  await page.goto(address);
  await check('the map shows every button and camera', async () => (await count('#map .buttons > g')) === 6 && (await count('#map .cameras > g')) === 7);
  await check('cameras with a direction have a sector, the dome a circle', async () => (await count('#map .views path[d*="L"]')) === 6);
  await check('states are told by shape as well as colour', async () => (await page.getAttribute('.cameras [data-id=cam-6] .mark', 'd')).length > 5 && (await page.getAttribute('.buttons [data-id=b-05] .badge', 'd')).length > 5);
  await check('the header counts buttons, cameras and what waits', async () => /5|4/.test(await text('#facts')) && (await text('#facts')).includes('4 / 6') && (await text('#facts')).includes('5 / 7') && (await text('#facts')).includes('12 recordings'));
  await check('the queue lists real incidents before tests, tests before closed ones', async () => JSON.stringify(await page.$$eval('.row.incident', (all) => all.map((row) => row.dataset.id.slice(-4)))) === '["bbbb","cccc","aaaa"]');
  await check('a test is marked', async () => (await text('.row[data-id$=cccc]')).includes('TEST'));
  await shot('1-quiet');

  incidents.push(incident);
  send('incident', incident);
  await check('a press opens by itself on an idle desk', async () => (await page.isVisible('#incident')) && (await text('#incident h2')) === 'Saddar Bazaar, gate 1');
  await check('the page title counts it', async () => (await page.title()).startsWith('(1)'));
  await check('its button pulses and three cameras are joined to it', async () => (await count('.buttons .pressed')) === 3 && (await count('#map .lines line')) === 4);
  await check('four cameras play', async () => (await videos()).length === 4 && (await videos()).every((v) => v.ready >= 2 && v.w === 640) || [await videos(), await page.$$eval('#incident video.evidence', (all) => all.map((v) => v.error?.message)), await page.$$eval('#incident .message', (all) => all.map((v) => v.textContent))]);
  const before = (await videos()).map((v) => v.t);
  await check('time goes on in each of them', async () => (await videos()).every((v, i) => v.t > before[i] + 0.8) || (await videos()));
  await check('they show one moment, five seconds before the press or later', async () => {
    const offset = await text('.time b');
    return /^[−+]/.test(offset) || offset;
  });
  await page.waitForTimeout(2500);
  await check('pictures of different cameras lie less than half a second apart', async () => {
    const [unit, , third] = (await videos()).map((v) => v.t);
    return Math.abs(unit - third) < 0.5 || [unit, third];
  });
  await check('held time, gap and presses are marked on the bar', async () => (await count('.marks .held')) >= 1 && (await count('.marks .press')) === 2);
  await check('steps show when they were proven', async () => (await count('.steps .done')) === 2 && /\d\d:\d\d:\d\d/.test(await text('.steps .done small')));
  await shot('2-incident');

  await page.keyboard.press('v');
  await check('V makes the next camera large', async () => (await page.getAttribute('.tile.main', 'data-camera')) === 'cam-1');
  await check('its gap is hatched', async () => (await count('.marks .gap')) === 1);
  await page.keyboard.press('p');
  await check('P goes to the press, over a gap to what is held after it', async () => (await page.$eval('.tile.main video', (v) => v.currentTime)) >= 13.5);
  const leapt = await page.$eval('.tile.main video', (v) => v.currentTime);
  await check('and plays on there', async () => (await page.$eval('.tile.main video', (v) => v.currentTime)) > leapt + 0.6);
  await page.keyboard.press('Space');
  await check('Space pauses all', async () => (await videos()).every((v) => v.paused));
  await page.keyboard.press('Space');
  await check('and plays them again', async () => (await videos()).every((v) => !v.paused));
  await page.keyboard.press('m');
  await check('M lets one camera be heard', async () => (await page.$$eval('#incident video.evidence', (all) => all.filter((v) => !v.muted).length)) === 1);
  const heldTo = () => page.$eval('.tile video', (v) => v.buffered.end(v.buffered.length - 1));
  const length = await heldTo();
  await check('evidence grows while it is recorded', async () => (await heldTo()) > length + 1);

  await page.keyboard.press('s');
  await check('an operator without a name is asked for it', async () => page.isVisible('#dialog input'));
  await page.keyboard.type('Ayesha');
  await page.keyboard.press('Enter');
  await check('S says seen, by name', async () => JSON.stringify(posts.at(-1)) === JSON.stringify([`/v1/incidents/${ID}/seen`, { by: 'Ayesha' }]));
  await check('and the step shows', async () => (await count('.steps .done')) === 3 && await page.isDisabled('.act.seen'));
  await page.keyboard.press('d');
  await check('D says dispatched', async () => posts.at(-1)?.[0].endsWith('/dispatched'));
  await shot('3-dispatched');
  await page.keyboard.press('c');
  await page.keyboard.press('Escape');
  await check('closing can be thought over', async () => !(await page.isVisible('#dialog')) && incident.state === 'dispatched');
  await page.keyboard.press('c');
  await page.keyboard.press('Enter');
  await check('C closes, once confirmed', async () => posts.at(-1)?.[0].endsWith('/close') && (await count('.row.incident.closed')) === 2);
  await page.keyboard.press('Escape');
  await check('Esc closes the panel', async () => !(await page.isVisible('#incident')));

  await page.keyboard.press('2');
  await check('2 lists the buttons', async () => (await count('.row.thing')) === 6);
  await page.keyboard.press('ArrowDown');
  await check('buttons can be reached by keys', async () => (await page.evaluate(() => document.activeElement.closest('.row')?.dataset.id)) === 'b-01');
  await page.locator('.row[data-id=b-02] .demo-act').click();
  await check('a demo button is pressed from the page', async () => posts.at(-1)?.[0] === '/demo/press/b-02');
  send('camera', { id: 'cam-1', state: 'unreachable', detail: 'connection reset' });
  send('button', condition('b-02', 'silent', { revision: 2 }));
  await check('changes of state show at once', async () => (await page.getAttribute('.cameras [data-id=cam-1]', 'data-state')) === 'unreachable' && (await page.getAttribute('.buttons [data-id=b-02]', 'data-state')) === 'silent');
  said.status = { ...said.status, backhaul: 'down', backhaul_since: iso(Date.now()), pending_documents: 3, pending_objects: 40, journal: 'failing: no space left on device' };
  await page.evaluate(() => { [window.framed, window.requestAnimationFrame] = [window.requestAnimationFrame, () => 0]; });
  send('status', said.status);
  await check('a failing journal is an alarm, on a page that has no frames too', async () => (await page.isVisible('#alarm')) && (await text('#alarm')).includes('no space left'));
  await page.evaluate(() => { window.requestAnimationFrame = window.framed; });
  await check('a cut backhaul shows since when', async () => (await count('.fact.bad .more')) === 1);
  await page.keyboard.press('3');
  await check('3 lists the cameras with what they say', async () => (await text('#list')).includes('connection refused'));
  await shot('4-trouble');
  await page.keyboard.press('?');
  await check('? explains the keys', async () => page.isVisible('#dialog kbd'));
  await page.keyboard.press('Enter');

  for (const stream of streams) stream.destroy();
  buttons.push(button('b-07', 'New post', place(-60, -150)));
  await check('after a lost connection everything is fetched anew', async () => (await count('#map .buttons > g')) === 7);
  // What the browser says of the cut connection is no fault of the page.
  const cut = complaints.splice(0).filter((one) => !/ERR_INCOMPLETE_CHUNKED_ENCODING|network error/i.test(one));
  complaints.push(...cut);

  said.token = 'right';
  await page.reload();
  await check('a gateway with clients asks for a token', async () => page.isVisible('#dialog input[type=password]'));
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await check('a wrong one is refused', async () => (await page.isVisible('#dialog')) && (await text('#dialog p')).includes('does not take'));
  await page.keyboard.type('right');
  await page.keyboard.press('Enter');
  await check('the right one opens', async () => (await text('#district')) === 'Saddar, Peshawar' && (await count('#map .buttons > g')) === 7);
  await check('the page complains of nothing', async () => complaints.length === 0 || complaints);
} finally {
  await browser.close();
  end();
}
conclude();
