// A gateway of canned answers and real media, for the tests of its pages: what it says can be changed under the page's hands.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const root = process.argv[2];
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

export const now = Date.now();
export const iso = (ms) => new Date(ms).toISOString();
const pressed = now - 14000;
const begin = pressed - 12000;
export const place = (east, south) => [34.0015 - south / 111195, 71.5387 + east / (111195 * Math.cos(34 * Math.PI / 180))];
export const condition = (id, presence, more = {}) => ({ button: id, revision: 1, presence, low_battery: false, tamper: false, heard_at: iso(now - 9000), since: iso(now - 86400000), status: { online: true, battery: 0.93 }, ...more });
export const button = (id, name, at, presence = 'online', more = {}) => ({ id, name, at, condition: condition(id, presence, more), unit: `unit-${id}` });
export const buttons = [
  button('b-01', 'Saddar Bazaar, gate 1', place(0, 0)), button('b-02', 'Bus stop 4', place(150, -70)), button('b-03', 'Tailors lane', place(-120, 90), 'online', { low_battery: true, status: { online: true, battery: 0.08 } }),
  button('b-04', 'Crossing north', place(60, -190)), button('b-05', 'School corner', place(-210, -80), 'silent'), button('b-06', 'Clinic', place(200, 110), 'unknown'),
];
export const camera = (id, name, at, facing, state = 'live', detail = '') => ({ id, name, at, facing, field_of_view: facing === null ? null : 90, range: 60, state, detail });
export const cameras = [
  camera('cam-1', 'Gate 1 mast', place(-25, -14), 110), camera('cam-2', 'Bazaar lane', place(35, 30), 310), camera('cam-3', 'Crossing dome', place(55, -160), null), camera('cam-4', 'Bus stop mast', place(125, -50), 60, 'stalled', 'no frame for 4 s'),
  camera('cam-5', 'Tailors lane', place(-100, 70), 220), camera('cam-6', 'School gate', place(-190, -95), 240, 'unreachable', 'connection refused'), camera('cam-7', 'Clinic wall', place(175, 95), 130),
];
export const link = (id, name, role, distance, sees, reason, recorded = true) => ({ id, name, role, at: place(0, 0), distance_m: distance, bearing_deg: 118, sees_button: sees, healthy: true, recorded, reason, live: `/v1/cameras/${id}/whep`, evidence: `/v1/incidents/${ID}/cameras/${id}/index.m3u8` });
export const ID = '019a2f3e-7a10-7c11-9a55-0242ac120002';
export const evidence = (id, gaps = []) => ({ camera: id, from: iso(begin), to: iso(pressed + 60000), objects: [], gaps, ended: false, complete: false });
export const incident = {
  id: ID, revision: 4, district: 'saddar', kind: 'panic', test: false, state: 'delivered', button: { id: 'b-01', name: 'Saddar Bazaar, gate 1', at: buttons[0].at },
  pressed_at: { at: iso(pressed), clock_synchronised: true, monotonic_ms: 1, boot: 'b' }, press_count: 2, presses: [{ at: iso(pressed), kind: 'panic' }, { at: iso(pressed + 4000), kind: 'panic' }],
  cameras: [link('unit-b-01', 'Unit of gate 1', 'unit', 0, true, 'the camera of the button\'s own unit'), link('cam-1', 'Gate 1 mast', 'nearby', 28.6, true, 'sees the button, 29 m away'), link('cam-2', 'Bazaar lane', 'nearby', 46.1, true, 'sees the button, 46 m away'), link('cam-3', 'Crossing dome', 'nearby', 169.2, false, 'does not reach the button: 169 m away, range 60 m'), link('cam-4', 'Bus stop mast', 'nearby', 134.6, false, 'stalled when it was ranked', false)],
  evidence: [evidence('unit-b-01'), evidence('cam-1', [{ from: iso(begin + 8000), to: iso(begin + 14000), reason: 'camera-down' }]), evidence('cam-2'), evidence('cam-3')],
  timeline: [{ at: iso(pressed), what: 'pressed: panic', proof: 'b-01' }, { at: iso(pressed + 3), what: 'recorded', proof: 'journal' }, { at: iso(pressed + 41), what: 'delivered', proof: "headquarters' PUBACK" }, { at: iso(pressed + 4000), what: 'pressed again: panic', proof: 'b-01' }],
};
export const other = (id, name, state, test, ago, kind = 'panic', b = 'b-02') => ({ ...incident, id, kind, test, state, button: { id: b, name, at: buttons.find((one) => one.id === b).at }, pressed_at: { ...incident.pressed_at, at: iso(now - ago) }, press_count: 1, presses: [{ at: iso(now - ago), kind }], cameras: [], evidence: [], timeline: [] });
export const incidents = [other('019a2f00-0000-7000-8000-00000000aaaa', 'Bus stop 4', 'closed', false, 5400000, 'medical'), other('019a2f00-0000-7000-8000-00000000bbbb', 'Crossing north', 'dispatched', false, 900000, 'accident', 'b-04'), other('019a2f00-0000-7000-8000-00000000cccc', 'Clinic', 'delivered', true, 300000, 'test', 'b-06')];
/** What the gateway says of itself, and what a test changes. */
export const said = { token: null, me: { name: 'console', role: 'operator', group: 'operators', groups: ['operators', 'shift-leaders'] }, calls: null, post: null, status: { backhaul: 'up', backhaul_since: iso(now - 7200000), pending_documents: 0, pending_objects: 12, journal: 'ok' } };
export const posts = [];
export const streams = new Set();
export const send = (name, data) => streams.forEach((stream) => stream.write(`id: ${Date.now()}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`));

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

// A tenth of a second of nothing.
const silence = Buffer.concat([Buffer.from('RIFF'), Buffer.from([0x64, 3, 0, 0]), Buffer.from('WAVEfmt '), Buffer.from([16, 0, 0, 0, 1, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x40, 0x1f, 0, 0, 1, 0, 8, 0]), Buffer.from('data'), Buffer.from([0x40, 3, 0, 0]), Buffer.alloc(832, 128)]);
const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', mp4: 'video/mp4', m4s: 'video/iso.segment', m3u8: 'application/vnd.apple.mpegurl' };
const csp = /CONTENT_SECURITY_POLICY: &str = "([^;]*;[^"]*)";/s.exec(readFileSync(join(root, 'src/api/page/mod.rs'), 'utf8'))[1].replace(/\\\n\s*/g, '');
const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  const answer = (type, body, code = 200) => response.writeHead(code, { 'Content-Type': type, 'Content-Security-Policy': csp, 'Service-Worker-Allowed': '/unit/' }).end(body);
  const json = (body, code) => answer('application/json', JSON.stringify(body), code);
  if (said.token && path === '/v1/session') {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      if (JSON.parse(body).token !== said.token) return json({ title: 'Unauthorized', detail: 'wrong token' }, 401);
      return response.writeHead(204, { 'Set-Cookie': 'chowki-session=of-the-page; Path=/; HttpOnly; SameSite=Strict' }).end();
    });
    return undefined;
  }
  const known = request.headers.authorization === `Bearer ${said.token}` || (request.headers.cookie ?? '').includes('chowki-session=of-the-page');
  if (said.token && path.startsWith('/v1') && !known) return json({ title: 'Unauthorized', detail: 'no token' }, 401);
  if (request.method === 'DELETE') {
    posts.push([`DELETE ${path}`, {}]);
    response.writeHead(204).end();
    return undefined;
  }
  if (request.method === 'POST') {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      if (said.post) {
        const own = said.post(request, path, body);
        if (own) {
          const give = ({ code = 200, headers = {}, text = '{}' }) => response.writeHead(code, { 'Content-Type': 'application/json', ...headers }).end(text);
          // At the end of a test the browser that would have answered may be gone.
          Promise.resolve(own).then(give, () => response.destroy());
          return undefined;
        }
      }
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
      return json({});
    });
    return undefined;
  }
  if (path === '/v1/events' || /^\/v1\/units\/[^/]*\/events$/.test(path)) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(': hello\n\n');
    streams.add(response);
    request.on('close', () => streams.delete(response));
    return undefined;
  }
  const canned = { '/v1/district': { district: { id: 'saddar', name: 'Saddar, Peshawar', bounds: [place(-420, 330), place(420, -330)] }, version: '0.1.0', demo: true }, '/v1/buttons': { buttons }, '/v1/cameras': { cameras }, '/v1/incidents': { incidents, next: null }, '/v1/status': said.status, '/v1/me': said.me, '/v1/calls': said.calls && { calls: said.calls }, '/v1/ice-servers': { ice_servers: [] } };
  if (canned[path]) return json(canned[path]);
  const [, id, file] = /^\/v1\/incidents\/[^/]*\/cameras\/([^/]*)\/([^/]*)$/.exec(path) ?? [];
  if (id === 'broken') return json({ detail: 'no' }, 404);
  try {
    if (file === 'index.m3u8') return answer(TYPES.m3u8, playlist(id));
    if (file) return answer(TYPES[file.split('.').pop()], readFileSync(join(media, id, file)));
    if (path.endsWith('.wav')) return answer('audio/wav', silence);
    const name = path === '/' ? 'index.html' : path.startsWith('/unit/') ? 'unit.html' : path.replace(/^\/page\//, '');
    return answer(TYPES[name.split('.').pop()], readFileSync(join(root, 'src/api/page', name)));
  } catch {
    return json({ title: 'Not Found' }, 404);
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
export const address = `http://127.0.0.1:${server.address().port}/`;

/** Ends it. */
export function end() {
  server.closeAllConnections();
  server.close();
  rmSync(media, { recursive: true, force: true });
}
