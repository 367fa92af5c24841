// The console page in a real browser, against a gateway of canned answers and real media. `node page.mjs ROOT SHOTS`:
// ROOT is the repository, SHOTS a folder for screenshots. Exit 0 when all holds; each check is a line.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [root, shots] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
const media = mkdtempSync(join(tmpdir(), 'chowki-page-'));

// ---- Media as the gateway keeps it: CMAF fragments, H.264 with Opus

const CLIPS = { 'unit-b-01': 'unit', 'cam-1': 'gate-1', 'cam-2': 'bazaar', 'cam-3': 'crossing' };
for (const [camera, clip] of Object.entries(CLIPS)) {
  mkdirSync(join(media, camera));
  const clips = join(root, 'src/cli/demo/clips');
  const silent = camera === 'cam-2';
  for (const [file, copy] of [[`${clip}.h264`, 'loop.h264'], ['street.ulaw', 'loop.ulaw']]) writeFileSync(join(media, camera, copy), Buffer.concat(Array(9).fill(readFileSync(join(clips, file)))));
  const sound = ['-f', 'mulaw', '-ar', '8000', '-ac', '1', '-i', 'loop.ulaw'];
  const hls = ['-f', 'hls', '-hls_time', '2', '-hls_list_size', '0', '-hls_segment_type', 'fmp4', '-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', '%05d.m4s'];
  execFileSync('ffmpeg', ['-v', 'error', '-fflags', '+genpts', '-framerate', '12', '-f', 'h264', '-i', 'loop.h264', ...(silent ? ['-map', '0:v'] : [...sound, '-map', '0:v', '-map', '1:a', '-ar', '48000', '-c:a', 'libopus', '-b:a', '24k']), '-c:v', 'copy', ...hls, 'index.m3u8'], { cwd: join(media, camera) });
}

// ---- The canned gateway

const now = Date.now();
const iso = (ms) => new Date(ms).toISOString();
const pressed = now - 14000;
const begin = pressed - 12000;
const place = (east, south) => [34.0015 - south / 111195, 71.5387 + east / (111195 * Math.cos(34 * Math.PI / 180))];
const condition = (id, presence, more = {}) => ({ button: id, revision: 1, presence, low_battery: false, tamper: false, heard_at: iso(now - 9000), since: iso(now - 86400000), status: { online: true, battery: 0.93 }, ...more });
const button = (id, name, at, presence = 'online', more = {}) => ({ id, name, at, condition: condition(id, presence, more), unit: `unit-${id}` });
const buttons = [
  button('b-01', 'Saddar Bazaar, gate 1', place(0, 0)), button('b-02', 'Bus stop 4', place(150, -70)), button('b-03', 'Tailors lane', place(-120, 90), 'online', { low_battery: true, status: { online: true, battery: 0.08 } }),
  button('b-04', 'Crossing north', place(60, -190)), button('b-05', 'School corner', place(-210, -80), 'silent'), button('b-06', 'Clinic', place(200, 110), 'unknown'),
];
const camera = (id, name, at, facing, state = 'live', detail = '') => ({ id, name, at, facing, field_of_view: facing === null ? null : 90, range: 60, state, detail });
const cameras = [
  camera('cam-1', 'Gate 1 mast', place(-25, -14), 110), camera('cam-2', 'Bazaar lane', place(35, 30), 310), camera('cam-3', 'Crossing dome', place(55, -160), null), camera('cam-4', 'Bus stop mast', place(125, -50), 60, 'stalled', 'no frame for 4 s'),
  camera('cam-5', 'Tailors lane', place(-100, 70), 220), camera('cam-6', 'School gate', place(-190, -95), 240, 'unreachable', 'connection refused'), camera('cam-7', 'Clinic wall', place(175, 95), 130),
];
const link = (id, name, role, distance, sees, reason, recorded = true) => ({ id, name, role, at: place(0, 0), distance_m: distance, bearing_deg: 118, sees_button: sees, healthy: true, recorded, reason, live: `/v1/cameras/${id}/whep`, evidence: `/v1/incidents/${ID}/cameras/${id}/index.m3u8` });
const ID = '019a2f3e-7a10-7c11-9a55-0242ac120002';
const evidence = (id, gaps = []) => ({ camera: id, from: iso(begin), to: iso(pressed + 60000), objects: [], gaps, ended: false, complete: false });
const incident = {
  id: ID, revision: 4, district: 'saddar', kind: 'panic', test: false, state: 'delivered', button: { id: 'b-01', name: 'Saddar Bazaar, gate 1', at: buttons[0].at },
  pressed_at: { at: iso(pressed), clock_synchronised: true, monotonic_ms: 1, boot: 'b' }, press_count: 2, presses: [{ at: iso(pressed), kind: 'panic' }, { at: iso(pressed + 4000), kind: 'panic' }],
  cameras: [link('unit-b-01', 'Unit of gate 1', 'unit', 0, true, 'the camera of the button\'s own unit'), link('cam-1', 'Gate 1 mast', 'nearby', 28.6, true, 'sees the button, 29 m away'), link('cam-2', 'Bazaar lane', 'nearby', 46.1, true, 'sees the button, 46 m away'), link('cam-3', 'Crossing dome', 'nearby', 169.2, false, 'does not reach the button: 169 m away, range 60 m'), link('cam-4', 'Bus stop mast', 'nearby', 134.6, false, 'stalled when it was ranked', false)],
  evidence: [evidence('unit-b-01'), evidence('cam-1', [{ from: iso(begin + 8000), to: iso(begin + 14000), reason: 'camera-down' }]), evidence('cam-2'), evidence('cam-3')],
  timeline: [{ at: iso(pressed), what: 'pressed: panic', proof: 'b-01' }, { at: iso(pressed + 3), what: 'recorded', proof: 'journal' }, { at: iso(pressed + 41), what: 'delivered', proof: "headquarters' PUBACK" }, { at: iso(pressed + 4000), what: 'pressed again: panic', proof: 'b-01' }],
};
const other = (id, name, state, test, ago, kind = 'panic', b = 'b-02') => ({ ...incident, id, kind, test, state, button: { id: b, name, at: buttons.find((one) => one.id === b).at }, pressed_at: { ...incident.pressed_at, at: iso(now - ago) }, press_count: 1, presses: [{ at: iso(now - ago), kind }], cameras: [], evidence: [], timeline: [] });
const incidents = [other('019a2f00-0000-7000-8000-00000000aaaa', 'Bus stop 4', 'closed', false, 5400000, 'medical'), other('019a2f00-0000-7000-8000-00000000bbbb', 'Crossing north', 'dispatched', false, 900000, 'accident', 'b-04'), other('019a2f00-0000-7000-8000-00000000cccc', 'Clinic', 'delivered', true, 300000, 'test', 'b-06')];
let status = { backhaul: 'up', backhaul_since: iso(now - 7200000), pending_documents: 0, pending_objects: 12, journal: 'ok' };
const posts = [];
const streams = new Set();
const send = (name, data) => streams.forEach((stream) => stream.write(`id: ${Date.now()}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`));
let token = null;

const GAP = { 'cam-1': [4, 7] };
/** The playlist as far as it is recorded: two seconds in two seconds. A gap leaves segments out, with a discontinuity. */
function playlist(id) {
  const text = readFileSync(join(media, id, 'index.m3u8'), 'utf8');
  const names = text.split('\n').filter((line) => line.endsWith('.m4s'));
  const lines = ['#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-TARGETDURATION:2', '#EXT-X-MAP:URI="init.mp4"'];
  const [from, to] = GAP[id] ?? [99, 99];
  const ready = Math.floor((Date.now() - begin) / 2000);
  names.slice(0, ready).forEach((name, i) => {
    if (i >= from && i < to) return;
    if (i === to) lines.push('#EXT-X-DISCONTINUITY');
    if (i === 0 || i === to) lines.push(`#EXT-X-PROGRAM-DATE-TIME:${iso(begin + i * 2000)}`);
    lines.push('#EXTINF:2.000,', name);
  });
  if (ready >= names.length) lines.push('#EXT-X-ENDLIST');
  return lines.join('\n');
}

const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', mp4: 'video/mp4', m4s: 'video/iso.segment', m3u8: 'application/vnd.apple.mpegurl' };
const csp = /CONTENT_SECURITY_POLICY: &str = "([^;]*;[^"]*)";/s.exec(readFileSync(join(root, 'src/api/page/mod.rs'), 'utf8'))[1].replace(/\\\n\s*/g, '');
const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  const answer = (type, body, code = 200) => response.writeHead(code, { 'Content-Type': type, 'Content-Security-Policy': csp }).end(body);
  const json = (body, code) => answer('application/json', JSON.stringify(body), code);
  if (token && path.startsWith('/v1') && request.headers.authorization !== `Bearer ${token}`) return json({ title: 'Unauthorized', detail: 'no token' }, 401);
  if (request.method === 'POST') {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      // Live pictures are tested with a real gateway.
      if (path.endsWith('/whep')) return json({ detail: 'no live pictures here' }, 503);
      posts.push([path, JSON.parse(body || '{}')]);
      const [, step] = /incidents\/[^/]*\/(\w+)$/.exec(path) ?? [];
      if (step) {
        incident.state = step === 'close' ? 'closed' : step;
        incident.revision += 1;
        incident.timeline.push({ at: iso(Date.now()), what: incident.state, proof: `by ${JSON.parse(body).by}` });
        send('incident', incident);
      }
      json({});
    });
    return;
  }
  if (path === '/v1/events') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(': hello\n\n');
    streams.add(response);
    request.on('close', () => streams.delete(response));
    return;
  }
  const canned = { '/v1/district': { district: { id: 'saddar', name: 'Saddar, Peshawar', bounds: [place(-420, 330), place(420, -330)] }, version: '0.1.0', demo: true }, '/v1/buttons': { buttons }, '/v1/cameras': { cameras }, '/v1/incidents': { incidents, next: null }, '/v1/status': status };
  if (canned[path]) return json(canned[path]);
  const [, id, file] = /^\/v1\/incidents\/[^/]*\/cameras\/([^/]*)\/([^/]*)$/.exec(path) ?? [];
  if (id === 'broken') return json({ detail: 'no' }, 404);
  try {
    if (file === 'index.m3u8') return answer(TYPES.m3u8, playlist(id));
    if (file) return answer(TYPES[file.split('.').pop()], readFileSync(join(media, id, file)));
    const name = path === '/' ? 'index.html' : path.replace(/^\/page\//, '');
    return answer(TYPES[name.split('.').pop()], readFileSync(join(root, 'src/api/page', name)));
  } catch {
    return json({ title: 'Not Found' }, 404);
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const address = `http://127.0.0.1:${server.address().port}/`;

// ---- The checks

let failures = 0;
const complaints = [];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const context = await browser.newContext({ viewport: { width: 1366, height: 768 } });
const page = await context.newPage();
page.on('console', (message) => { if (['error', 'warning'].includes(message.type()) && !/status of (401|503)/.test(message.text())) complaints.push(message.text()); });
page.on('pageerror', (error) => complaints.push(String(error)));

async function check(sentence, test, limit = 15000) {
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
  await page.screenshot({ path: join(shots, 'failure.png') });
}
const count = (selector) => page.locator(selector).count();
const text = (selector) => page.locator(selector).first().textContent();
const videos = () => page.$$eval('#incident video.evidence', (all) => all.map((v) => ({ t: v.currentTime, ready: v.readyState, w: v.videoWidth, paused: v.paused })));
const shot = (name) => page.screenshot({ path: join(shots, `${name}.png`) });

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
  status = { ...status, backhaul: 'down', backhaul_since: iso(Date.now()), pending_documents: 3, pending_objects: 40, journal: 'failing: no space left on device' };
  send('status', status);
  await check('a failing journal is an alarm', async () => (await page.isVisible('#alarm')) && (await text('#alarm')).includes('no space left'));
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

  token = 'right';
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
  server.closeAllConnections();
  server.close();
  rmSync(media, { recursive: true, force: true });
}
console.log(failures ? `${failures} failed` : 'all hold');
process.exit(failures ? 1 : 0);
