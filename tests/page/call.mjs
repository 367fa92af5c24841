// Calls at the console page in a real browser, against the canned gateway, with another page as the far end of WebRTC.
// `node call.mjs ROOT SHOTS`, as page.mjs.
import { address, buttons, end, ID, incident, incidents, iso, posts, said, send } from './canned.mjs';
import { checks, complaintsOf, conclude, launch, MEDIA } from './checks.mjs';
import { peer } from './peer.mjs';

const browser = await launch(MEDIA);
const context = await browser.newContext({ viewport: { width: 1366, height: 768 } });
const far = await peer(context, address);
const page = await context.newPage();
const complaints = complaintsOf(page);
const { check, count, text, shot } = checks(page);

// ---- The call as the gateway would tell of it

const ADDRESS = `/v1/incidents/${ID}/call`;
const asked = [];
let [refuse, sessions, lastPeer] = [0, 0, null];
const told = {
  incident: ID, kind: 'panic', button: { id: 'b-01', name: 'Saddar Bazaar, gate 1', at: buttons[0].at }, pressed_at: incident.pressed_at.at,
  camera: { id: 'unit-b-01', name: 'Unit of gate 1', live: '/v1/cameras/unit-b-01/whep' },
  call: { address: ADDRESS, state: 'ringing', since: iso(Date.now()), rings: 1, again: null, group: 'operators', unit: { kind: 'screen', voice: true }, speaker: null, listeners: [], answered_at: null, ended: null, spoke: [] },
};
const tell = (call) => {
  Object.assign(told.call, { since: iso(Date.now()) }, call);
  send('call', told);
};
said.calls = [];
said.post = async (request, path, body) => {
  if (path === ADDRESS) {
    asked.push(Object.fromEntries(new URL(request.url, address).searchParams));
    if (refuse) {
      refuse -= 1;
      return { code: 409, text: JSON.stringify({ detail: 'Bilal has the floor' }) };
    }
    const { sdp, id } = await far.answer(body);
    lastPeer = id;
    sessions += 1;
    return { code: 201, headers: { 'Content-Type': 'application/sdp', Location: `${ADDRESS}/s${sessions}`, 'Chowki-Party': String(sessions) }, text: sdp };
  }
  if (path.endsWith('/whep')) return { code: 201, headers: { 'Content-Type': 'application/sdp', Location: `${path}/w` }, text: (await far.answer(body)).sdp };
  posts.push([path, JSON.parse(body || '{}')]);
  return { code: 200 };
};
const mine = () => ({ party: sessions, name: 'Ayesha' });
const state = () => page.getAttribute('.call', 'data-state');
const words = () => text('.call .word');

try {
  await page.addInitScript(() => localStorage.setItem('chowki-operator', 'Ayesha'));
  // The first fetch fails; while the second is on its way a call begins to ring.
  let fetches = 0;
  await page.route('**/v1/calls', async (route) => {
    fetches += 1;
    if (fetches === 1) return route.fulfill({ status: 503, body: '{}' });
    const response = await route.fetch();
    if (fetches === 2) {
      tell({});
      await page.waitForTimeout(300);
    }
    return route.fulfill({ response });
  });
  await page.goto(address);
  await check('the page is connected', async () => (await count('.fact.good')) > 0);
  await check('what could not be fetched is fetched again, and what was told meanwhile stays', async () => fetches === 2 && (await count('.cameras > g')) === 7 && (await count('.ring-card')) === 1);
  await page.unroute('**/v1/calls');

  await check('a call rings before its incident is there', async () => (await count('.ring-card')) === 1 && (await text('.ring-card')).includes('Saddar Bazaar'));
  await check('with the place live in its card', async () => (await count('.ring-card[data-live=live]')) === 1);
  await far.still(true);
  await check('pictures that stop are not called live', async () => (await count('.ring-card[data-live=lost]')) === 1);
  await far.still(false);
  await check('until they go on', async () => (await count('.ring-card[data-live=live]')) === 1);
  await check('in the title, and in the icon of the tab', async () => (await page.title()).startsWith('(1)') && (await page.getAttribute('link[rel=icon]', 'href')).includes('ringing'));
  await check('and opens on an idle desk, ringing', async () => (await state()) === 'ringing' && (await words()).includes('Ringing'));
  incidents.push(incident);
  send('incident', incident);
  await check('the document takes its place when it comes', async () => (await count('.tile')) === 4 && (await count('.row.incident')) === 4);
  tell({ group: 'shift-leaders', rings: 2 });
  await check('an escalated call says so, and looks so', async () => (await count('.ring-card.escalated')) === 1 && (await text('.ring-card .why')).includes('shift-leaders'));
  const second = { ...told, incident: '019a2f00-0000-7000-8000-00000000dddd', pressed_at: iso(Date.parse(told.pressed_at) - 60000), camera: null };
  const order = () => page.$$eval('.ring-card', (all) => all.map((one) => one.dataset.id));
  send('call', { ...second, call: { ...told.call, group: 'operators', rings: 1 } });
  await check('an escalated call stands above another', async () => JSON.stringify(await order()) === JSON.stringify([ID, second.incident]));
  await page.focus('.ring-card .answer');
  send('call', { ...second, call: told.call });
  await check('of two alike the one that has waited longer is the first', async () => JSON.stringify(await order()) === JSON.stringify([second.incident, ID]));
  await check('with the focus where it was, and the pictures going on', async () => {
    const at = () => page.$eval(`.ring-card[data-id="${ID}"] video`, (one) => one.currentTime);
    const was = await at();
    await page.waitForTimeout(300);
    return (await at()) > was && page.evaluate((id) => document.activeElement.closest('.ring-card')?.dataset.id === id, ID);
  });
  send('call', { ...second, call: { ...told.call, state: 'ended', ended: { at: iso(Date.now()), reason: 'closed', by: 'Bilal' } } });
  await check('what has ended rings no more', async () => (await count('.ring-card')) === 1);
  await page.waitForTimeout(800);
  await shot('call-1-ringing');

  await page.keyboard.press('Escape');
  await check('the card rings on when the panel is closed', async () => !(await page.isVisible('#incident')) && (await count('.ring-card')) === 1);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('Enter');
  await check('a bare Enter answers from the card', async () => JSON.stringify(asked[0]) === JSON.stringify({ as: 'speak', by: 'Ayesha' }) || asked);
  await check('the gateway gives her a session', async () => sessions === 1);
  await check('nothing is called answered that the gateway has not said', async () => !(await words()).includes('through'));
  tell({ state: 'answered', speaker: mine(), answered_at: iso(Date.now()) });
  await check('when it has, she is through', async () => (await words()) === 'You are through');
  await check('the pictures of the call are the large ones', async () => (await count('.tile.main.is-called')) === 1 && (await page.$eval('.tile.main video.called', (v) => v.videoWidth)) > 0);
  await far.still(true);
  await check('until they stop', async () => (await count('.is-called, .is-live')) === 0);
  await far.still(false);
  await check('and again when they go on', async () => (await count('.tile.main.is-called')) === 1);
  await check('nothing rings any more', async () => (await count('.ring-card')) === 0 && !(await page.getAttribute('link[rel=icon]', 'href')).includes('ringing'));
  await check('the microphone is heard at the other end', async () => (await far.received(lastPeer)).audio > 20);
  await check('and its level shows', async () => (await page.$eval('.level', (one) => one.value)) > 0 && (await page.isVisible('.level')));
  await shot('call-2-through');

  await page.keyboard.press('t');
  await check('T mutes', async () => (await text('.call .note')).includes('muted'));
  await page.keyboard.down('t');
  await page.waitForTimeout(600);
  await check('T held talks', async () => !(await page.isVisible('.call .note')));
  await page.keyboard.up('t');
  await check('and no longer', async () => (await text('.call .note')).includes('muted'));
  await page.keyboard.press('t');
  await check('T again opens the microphone for good', async () => !(await page.isVisible('.call .note')));
  await page.keyboard.press('k');
  await check('K shows her face at a unit with a screen, by H.264', async () => { const seen = await far.received(lastPeer); return (seen.video > 5 && seen.codec === 'video/H264') || seen; });

  await page.keyboard.press('h');
  await check('H holds', async () => posts.some(([path]) => path === `${ADDRESS}/s1/hold`));
  tell({ state: 'held' });
  await check('on hold is said', async () => (await words()) === 'On hold');
  await shot('call-3-held');
  await page.keyboard.press('h');
  await check('H again resumes', async () => posts.some(([path]) => path === `${ADDRESS}/s1/resume`));
  tell({ state: 'answered', listeners: [{ party: 9, name: 'Bilal' }], spoke: [{ who: 'unit', from: iso(Date.now()), to: null }] });
  await check('who listens is named, and that the unit speaks', async () => (await text('.call .who')).includes('Bilal') && (await text('.call .who')).includes('Unit speaks'));
  await page.keyboard.press('o');
  await check('O offers those who listen, and the other groups', async () => (await count('.choices button')) === 2);
  await shot('call-4-hand-over');
  await page.keyboard.press('Enter');
  await check('and hands over', async () => posts.some((one) => JSON.stringify(one) === JSON.stringify([`${ADDRESS}/s1/hand-over`, { party: 9 }])));
  tell({ speaker: { party: 9, name: 'Bilal' }, listeners: [mine()], spoke: [] });
  await check('who has handed over listens', async () => (await text('.call')).includes('Bilal has the call') && (await text('.call .note')).includes('You listen'));
  await check('and cannot hold', async () => !(await page.isVisible('.call-act.hold')));
  tell({ speaker: mine(), listeners: [{ party: 9, name: 'Bilal' }] });
  await check('handed back, she has the floor', async () => (await words()) === 'You are through');

  tell({ handing_over: 'shift-leaders' });
  await check('a group that it is handed to is waited for', async () => (await text('.call .note')).includes('shift-leaders') && (await count('.ring-card')) === 0);
  tell({ handing_over: null });

  await far.cut(lastPeer);
  await check('a connection that was cut is told', async () => (await page.getAttribute('.call', 'data-connection')) === 'cut' || asked.length > 1);
  await check('and takes the place of the one before', async () => asked.length > 1 && asked.at(-1).replaces === 's1' && asked.at(-1).as === 'speak' && sessions === 2);
  await check('connected anew', async () => (await page.getAttribute('.call', 'data-connection')) === 'connected');
  tell({});
  await page.waitForTimeout(300);
  await check('what is told of the connection before does not take the floor from her', async () => page.evaluate(() => JSON.parse(sessionStorage.getItem('chowki-call')).as === 'speak'));
  tell({ speaker: mine() });
  await check('then she is through again', async () => (await words()) === 'You are through' && (await page.getAttribute('.call', 'data-connection')) === 'connected');

  const before = asked.length;
  await page.evaluate(() => { window.was = true; });
  said.calls = [told];
  await page.reload();
  await check('a page loaded anew goes back into its call', async () => asked.length > before && asked.at(-1).replaces === 's2' && sessions === 3);
  tell({ speaker: mine() });
  await check('with its pictures', async () => (await count('.tile.main.is-called')) === 1 && (await words()) === 'You are through');

  await page.keyboard.press('x');
  await check('X asks before it ends the call for all', async () => page.isVisible('#dialog'));
  await page.keyboard.press('Enter');
  await check('and hangs up', async () => posts.some(([path]) => path === `DELETE ${ADDRESS}/s3`));
  tell({ state: 'ended', speaker: null, listeners: [], ended: { at: iso(Date.now()), reason: 'hung-up', by: 'Ayesha' } });
  await check('it has ended, by name, and can be called back', async () => (await words()).includes('Ayesha') && (await text('.call-act.answer')).includes('Call back'));

  tell({ state: 'ringing', again: 'operator-lost', ended: null, rings: 3, group: 'operators' });
  await check('ringing again says why', async () => (await text('.ring-card .why')).includes('cut off'));
  refuse = 1;
  await page.keyboard.press('a');
  await check('who is second listens', async () => asked.at(-1).as === 'listen' && (await text('.toast')).includes('answered'));
  tell({ state: 'answered', again: null, speaker: { party: 9, name: 'Bilal' }, listeners: [mine()] });
  await page.keyboard.press('x');
  await check('a listener leaves without being asked', async () => posts.some(([path]) => path === `DELETE ${ADDRESS}/s4`) && !(await page.isVisible('#dialog')));
  tell({ listeners: [] });

  said.me = { ...said.me, role: 'supervisor' };
  await page.reload();
  await page.locator('.row.incident').first().click();
  await check('a supervisor can take the floor', async () => page.isVisible('.call-act.take'));
  await page.keyboard.press('f');
  await check('by listening first', async () => asked.at(-1).as === 'listen' && posts.some(([path]) => path.endsWith('/speak')) || [asked.at(-1), posts.at(-1)]);
  tell({ state: 'ended', speaker: null, listeners: [], ended: { at: iso(Date.now()), reason: 'closed', by: 'Bilal' } });
  await check('an ended call leaves nobody in it', async () => !(await page.isVisible('.call-act.hangUp')));

  said.me = { ...said.me, role: 'operator', group: 'shift-leaders' };
  said.calls = [];
  await page.reload();
  await check('the page is up', async () => (await count('.row.incident')) === 4);
  tell({ state: 'ringing', group: 'operators', ended: null, again: null });
  await page.waitForTimeout(500);
  await check('a later group sees a call silently', async () => (await count('.ring-card')) === 0 && (await count('.call-chip.ringing')) === 1);
  tell({ group: 'shift-leaders' });
  await check('until it is its turn', async () => (await count('.ring-card.escalated')) === 1);

  tell({ state: 'answered', speaker: { party: 9, name: 'Bilal' }, handing_over: 'operators' });
  await check('a call handed to another group does not ring here', async () => (await count('.ring-card')) === 0);
  tell({ handing_over: 'shift-leaders' });
  await check('one handed to this group does, while another keeps the floor', async () => (await text('.ring-card .why')).includes('Handed over'));
  tell({ state: 'ringing', speaker: null, handing_over: null });

  await page.evaluate(() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError')); });
  await page.keyboard.press('a');
  await check('without a microphone the floor is not taken', async () => asked.at(-1).as === 'listen');
  await check('and what to do is said', async () => (await text('.call .note')).includes('allow the microphone'));
  await shot('call-5-no-microphone');
  await check('the page complains of nothing', async () => complaints.length === 0 || complaints);
} finally {
  await browser.close();
  end();
}
conclude();
