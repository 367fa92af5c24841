// Players in a real browser for scripts/bench/live: requests as lines of JSON on standard input, answers on standard output.
// node players.mjs PAGE, any page of the gateway whose cameras are watched.
//
// {"do": "prepare", "socket": "ws://..."}: a session at a Janus, for the `janus` of `start`
// {"do": "start", "name", "whep": "/v1/..." | "janus": {"socket", "camera"}, "numbers": true}: answers at the first picture
// {"do": "stop", "name"}: what was seen
// {"do": "clock"}: the page's clock between two readings of the machine's monotonic one

import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--allow-loopback-in-peer-connection',
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
// The Janus is another origin.
const page = await (await browser.newContext({ bypassCSP: true, viewport: { width: 1280, height: 720 } })).newPage();
await page.goto(process.argv[2]);

await page.evaluate(() => {
  const players = new Map();
  const janusAt = new Map();

  /** A session at a Janus: `call` gives the answer, or with `event` the event that follows. */
  async function prepare({ socket }) {
    const line = new WebSocket(socket, 'janus-protocol');
    await new Promise((done, failed) => Object.assign(line, { onopen: done, onerror: failed }));
    const waiting = new Map();
    let count = 0;
    let session;
    line.onmessage = ({ data }) => {
      const said = JSON.parse(data);
      const one = waiting.get(said.transaction);
      if (!one || (one.event && said.janus === 'ack')) return;
      waiting.delete(said.transaction);
      const fault = said.error ?? said.plugindata?.data?.error;
      if (fault) one.failed(new Error(JSON.stringify(said)));
      else one.done(said);
    };
    const call = (request, event = false) => new Promise((done, failed) => {
      const transaction = `${++count}`;
      waiting.set(transaction, { done, failed, event });
      line.send(JSON.stringify({ ...request, transaction, ...(session && { session_id: session }) }));
    });
    session = (await call({ janus: 'create' })).data.id;
    janusAt.set(socket, call);
    return {};
  }

  async function whep(peer, path, times) {
    peer.addTransceiver('audio', { direction: 'recvonly' });
    peer.addTransceiver('video', { direction: 'recvonly' });
    await peer.setLocalDescription(await peer.createOffer());
    times.asked = performance.now();
    const answer = await fetch(path, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: peer.localDescription.sdp });
    if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
    await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
    return () => fetch(answer.headers.get('location'), { method: 'DELETE' });
  }

  async function janus(peer, { socket, camera }, times) {
    const call = janusAt.get(socket);
    const handle = { handle_id: (await call({ janus: 'attach', plugin: 'janus.plugin.streaming' })).data.id };
    times.clicked = times.asked = performance.now();
    const { jsep } = await call({ janus: 'message', ...handle, body: { request: 'watch', id: camera } }, true);
    peer.onicecandidate = ({ candidate }) => call({ janus: 'trickle', ...handle, candidate: candidate ?? { completed: true } });
    await peer.setRemoteDescription(jsep);
    await peer.setLocalDescription(await peer.createAnswer());
    await call({ janus: 'message', ...handle, body: { request: 'start' }, jsep: peer.localDescription }, true);
    return () => call({ janus: 'detach', ...handle });
  }

  /** The number in the left upper corner of a picture; null when it proves wrong. */
  function reader(video) {
    const canvas = new OffscreenCanvas(64, 4);
    const paper = canvas.getContext('2d', { willReadFrequently: true });
    return () => {
      paper.drawImage(video, 0, 0, 640, 40, 0, 0, 64, 4);
      const { data } = paper.getImageData(0, 2, 64, 1);
      let code = 0;
      for (let bit = 0; bit < 16; bit += 1) code = code * 2 + (data[(bit * 4 + 2) * 4] > 127 ? 1 : 0);
      const number = code >> 6;
      return (code & 63) === ((number * 37 + 11) & 63) ? number : null;
    };
  }

  async function start(wanted) {
    const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: new MediaStream(), width: 480 });
    document.body.append(video);
    const times = { clicked: performance.now() };
    const pictures = [];
    const peer = new RTCPeerConnection();
    peer.ontrack = ({ track }) => video.srcObject.addTrack(track);
    const read = wanted.numbers && reader(video);
    const first = new Promise((done, failed) => {
      const onPicture = (now, { receiveTime, expectedDisplayTime, rtpTimestamp }) => {
        times.first ??= performance.now();
        done();
        if (read) pictures.push([read(), receiveTime ?? null, expectedDisplayTime, rtpTimestamp]);
        if (players.has(wanted.name)) video.requestVideoFrameCallback(onPicture);
      };
      video.requestVideoFrameCallback(onPicture);
      setTimeout(failed, 30_000, new Error('no picture in 30 s'));
    });
    players.set(wanted.name, { peer, video, pictures, end: () => {} });
    players.get(wanted.name).end = await (wanted.whep ? whep(peer, wanted.whep, times) : janus(peer, wanted.janus, times));
    await first;
    return { asked: times.asked, first: times.first, from_request_ms: times.first - times.asked, from_click_ms: times.first - times.clicked };
  }

  async function stop({ name }) {
    const { peer, video, pictures, end } = players.get(name);
    players.delete(name);
    const seen = { pictures };
    for (const one of (await peer.getStats()).values()) {
      if (one.type === 'inbound-rtp') {
        const { packetsReceived, packetsLost, framesDecoded, framesDropped, keyFramesDecoded, freezeCount, totalFreezesDuration, nackCount, pliCount } = one;
        seen[one.kind] = { packetsReceived, packetsLost, framesDecoded, framesDropped, keyFramesDecoded, freezeCount, totalFreezesDuration, nackCount, pliCount };
      }
      if (one.type === 'transport') seen.cipher = one.srtpCipher;
    }
    await end();
    peer.close();
    video.remove();
    return seen;
  }

  window.players = { prepare, start, stop, clock: () => performance.now() };
});

const monotonic = () => Number(process.hrtime.bigint()) / 1e6;

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    const before = monotonic();
    const said = await page.evaluate((wanted) => window.players[wanted.do](wanted), request);
    console.log(JSON.stringify(request.do === 'clock' ? { before, page: said, after: monotonic() } : said));
  } catch (fault) {
    console.log(JSON.stringify({ fault: `${fault}` }));
  }
}
await browser.close();
