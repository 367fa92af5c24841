// The parties of a call, each a page of a real browser: operators, and units with a screen. Reads a command a line and
// answers each with a line, both JSON: {"do": "join" | "screen" | "look" | "send" | "leave" | "close" | "crash", "who": NAME, ...}.
// node parties.mjs URL

import { execFileSync } from 'node:child_process';
import readline from 'node:readline';
import { chromium } from 'playwright-core';
import { throughLine } from './line.mjs';

const [base] = process.argv.slice(2);

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--allow-loopback-in-peer-connection',
];

// ---- what runs in each page

/** Offers a tone and moving pictures; keeps what the party needs in `window.party`. */
async function begin({ url, token, tone, pictures, second }) {
  const context = new AudioContext({ sampleRate: 48000 });
  const [oscillator, gain, out] = [context.createOscillator(), context.createGain(), context.createMediaStreamDestination()];
  oscillator.frequency.value = tone || 440;
  gain.gain.value = tone ? 0.3 : 0;
  oscillator.connect(gain).connect(out);
  oscillator.start();
  const peer = new RTCPeerConnection();
  const party = { peer, context, gain, heard: [], frames: 0, states: [] };
  window.party = party;
  const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: new MediaStream() });
  document.body.append(video);
  party.video = video;
  const onFrame = () => {
    party.frames += 1;
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  peer.onconnectionstatechange = () => party.states.push(peer.connectionState);
  peer.ontrack = ({ track }) => {
    if (track.kind === 'video') return video.srcObject.addTrack(track);
    // Sound flows into a graph only while an element plays it as well.
    const element = Object.assign(new Audio(), { muted: true, srcObject: new MediaStream([track]) });
    element.play().catch(() => {});
    const analyser = Object.assign(context.createAnalyser(), { fftSize: 8192, smoothingTimeConstant: 0 });
    context.createMediaStreamSource(element.srcObject).connect(analyser);
    party.heard.push({ analyser, element });
  };
  peer.addTransceiver(out.stream.getAudioTracks()[0], { direction: 'sendrecv' });
  if (pictures) {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const draw = canvas.getContext('2d');
    let turn = 0;
    setInterval(() => {
      turn += 1;
      draw.fillStyle = `hsl(${turn * 7} 60% 50%)`;
      draw.fillRect(0, 0, 640, 360);
      draw.fillStyle = '#fff';
      draw.fillRect((turn * 11) % 640, 100, 80, 80);
    }, 66);
    const sender = peer.addTransceiver(canvas.captureStream(15).getVideoTracks()[0], { direction: 'sendrecv' });
    const h264 = RTCRtpReceiver.getCapabilities('video').codecs.filter((codec) => codec.mimeType === 'video/H264');
    sender.setCodecPreferences(h264);
  } else {
    peer.addTransceiver('video', { direction: 'recvonly' });
  }
  if (second) peer.addTransceiver('audio', { direction: 'recvonly' });
  await peer.setLocalDescription(await peer.createOffer());
  const headers = { 'content-type': 'application/sdp', ...(token && { authorization: `Bearer ${token}` }) };
  const answered = await fetch(url, { method: 'POST', headers, body: peer.localDescription.sdp });
  const answer = await answered.text();
  if (answered.status !== 201) return { status: answered.status, detail: JSON.parse(answer).detail };
  party.session = answered.headers.get('location');
  await peer.setRemoteDescription({ type: 'answer', sdp: await window.throughLine(answer) });
  const until = performance.now() + 15000;
  while (peer.connectionState !== 'connected' && performance.now() < until) await new Promise((done) => setTimeout(done, 20));
  return { status: answered.status, session: party.session, party: Number(answered.headers.get('chowki-party')), connected: peer.connectionState };
}

/** What a party sees and hears in so many seconds: frames, and the loudest frequency of each sound. */
async function look({ seconds }) {
  const { party } = window;
  const before = party.frames;
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const loudest = ({ analyser }) => {
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    const at = bins.reduce((best, value, i) => (value > bins[best] ? i : best), 0);
    return { hz: Math.round((at * party.context.sampleRate) / analyser.fftSize), db: Math.round(bins[at]) };
  };
  const counts = {};
  for (const one of (await party.peer.getStats()).values()) {
    if (one.type !== 'inbound-rtp') continue;
    const { packetsReceived, packetsLost, framesDecoded, nackCount, pliCount, concealedSamples, totalSamplesReceived } = one;
    (counts[one.kind] ??= []).push({ packetsReceived, packetsLost, framesDecoded, nackCount, pliCount, concealedSamples, totalSamplesReceived });
  }
  return {
    frames: party.frames - before, size: [party.video.videoWidth, party.video.videoHeight],
    heard: party.heard.map(loudest), state: party.peer.connectionState, counts,
  };
}

// ---- commands

let browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
const pages = new Map();

async function open(who, line) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${base}/healthz`);
  await page.exposeFunction('throughLine', async (answer) => (line ? throughLine(answer, line) : answer));
  pages.set(who, page);
  return page;
}

const commands = {
  async join({ who, incident, as = 'speak', tone = 0, pictures = false, second = true, token, line, replaces }) {
    const page = await open(who, line);
    const query = new URLSearchParams({ as, by: who, ...(replaces && { replaces }) });
    return page.evaluate(begin, { url: `${base}/v1/incidents/${incident}/call?${query}`, token, tone, pictures, second });
  },
  async screen({ who, button, tone = 0, token, line }) {
    const page = await open(who, line);
    return page.evaluate(begin, { url: `${base}/v1/units/${button}/session`, token, tone, pictures: true, second: false });
  },
  look: ({ who, seconds = 1 }) => pages.get(who).evaluate(look, { seconds }),
  send: ({ who, path, body = '', token, method = 'POST' }) => pages.get(who).evaluate(async ({ path, body, token, method }) => {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answered = await fetch(path.replace('{session}', window.party?.session), { method, headers, body: body || undefined });
    return { status: answered.status, text: await answered.text() };
  }, { path, body, token, method }),
  leave: ({ who, token }) => commands.send({ who, path: '{session}', method: 'DELETE', token }),
  async tone({ who, level }) {
    return pages.get(who).evaluate((level) => { window.party.gain.gain.value = level; return {}; }, level);
  },
  async close({ who }) {
    await pages.get(who).context().close();
    pages.delete(who);
    return {};
  },
  async crash() {
    execFileSync('pkill', ['-KILL', '-P', String(process.pid)]);
    pages.clear();
    browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
    return {};
  },
};

for await (const text of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(text);
  const answer = await commands[command.do](command).catch((error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
await browser.close();
process.exit(0);
