// Watches a camera live in a real browser, if wanted over a bad line, and prints what the browser counted.
// node live.mjs URL CAMERA SECONDS [loss=0.05] [delay=150] [rate=1000] [crash=1] [relay=1] [tcp=PORT]: `rate` in kbit/s; with
// `crash` the browser is killed at the end; with `relay` it goes by the TURN server that the gateway names; with `tcp` it is told of no address by UDP, as if a firewall let none through, and of that port by TCP.

import { execFileSync } from 'node:child_process';
import { chromium } from 'playwright-core';
import { throughLine } from './line.mjs';

const [base, camera, seconds, ...rest] = process.argv.slice(2);
const { loss = 0, delay = 0, rate = 0, crash = 0, relay = 0, tcp = 0 } = Object.fromEntries(rest.map((one) => one.split('=')).map(([name, value]) => [name, Number(value)]));

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--allow-loopback-in-peer-connection',
];

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
const page = await (await browser.newContext()).newPage();
await page.goto(`${base}/healthz`);
await page.exposeFunction('throughBadLine', async (answer) => {
  if (tcp) return answer.replace(/a=candidate:.* udp .*\r\n/g, '').replace(/(a=candidate:.* tcp .*) \d+( typ host tcptype)/g, `$1 ${tcp}$2`);
  return loss || delay || rate ? throughLine(answer, { loss, delay, rate }) : answer;
});

const seen = await page.evaluate(async ({ url, seconds, crash, relay }) => {
  const { ice_servers: iceServers } = await (await fetch('/v1/ice-servers')).json();
  const peer = new RTCPeerConnection({ iceServers, iceTransportPolicy: relay ? 'relay' : 'all' });
  const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: new MediaStream() });
  document.body.append(video);
  const context = new AudioContext({ sampleRate: 48000 });
  const analyser = Object.assign(context.createAnalyser(), { fftSize: 8192, smoothingTimeConstant: 0 });
  peer.ontrack = ({ track }) => {
    video.srcObject.addTrack(track);
    if (track.kind === 'audio') context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  };
  peer.addTransceiver('audio', { direction: 'recvonly' });
  peer.addTransceiver('video', { direction: 'recvonly' });
  // How long each picture was held between its arrival and its display.
  const held = [];
  const times = {};
  let begun;
  const onFrame = (now, { receiveTime, expectedDisplayTime }) => {
    times.first ??= performance.now() - begun;
    if (receiveTime) held.push(expectedDisplayTime - receiveTime);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  await peer.setLocalDescription(await peer.createOffer());
  begun = performance.now();
  const answered = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: peer.localDescription.sdp });
  const answer = await answered.text();
  times.answer = performance.now() - begun;
  if (answered.status !== 201) return { status: answered.status, answer };
  await peer.setRemoteDescription({ type: 'answer', sdp: await window.throughBadLine(answer) });
  const wait = () => new Promise((done) => setTimeout(done, seconds * 500));
  const decoded = async () => [...(await peer.getStats()).values()].find((one) => one.framesDecoded)?.framesDecoded ?? 0;
  await wait();
  const halfway = await decoded();
  // The tone that is the loudest of most moments, and how loud it is at its best: cameras of the rig beep two octaves
  // above their tone each second, and a busy machine makes the browser stumble.
  const bins = new Float32Array(analyser.frequencyBinCount);
  const heard = new Map();
  const listening = setInterval(() => {
    analyser.getFloatFrequencyData(bins);
    const at = bins.reduce((best, value, i) => (value > bins[best] ? i : best), 0);
    const { times, db } = heard.get(at) ?? { times: 0, db: -200 };
    if (bins[at] > -100) heard.set(at, { times: times + 1, db: Math.max(db, bins[at]) });
  }, 100);
  await wait();
  clearInterval(listening);
  if (crash) return { status: answered.status, frames: held.length };
  const result = { status: answered.status, times, halfway, size: [video.videoWidth, video.videoHeight] };
  const [bin, { db }] = [...heard].sort(([, a], [, b]) => b.times - a.times)[0] ?? [0, { db: -200 }];
  result.loudest = { hz: Math.round((bin * context.sampleRate) / analyser.fftSize), db: Math.round(db) };
  const half = held.slice(held.length / 2).sort((a, b) => a - b);
  result.held_ms = half[Math.floor(half.length / 2)];
  const stats = await peer.getStats();
  const transport = [...stats.values()].find((one) => one.type === 'transport');
  const pair = stats.get(transport.selectedCandidatePairId);
  result.protocol = stats.get(pair.remoteCandidateId).protocol;
  result.by = stats.get(pair.localCandidateId).candidateType;
  for (const one of stats.values()) {
    if (one.type !== 'inbound-rtp') continue;
    const { packetsReceived, packetsLost, framesDecoded, keyFramesDecoded, nackCount, pliCount, totalSamplesReceived, concealedSamples, freezeCount } = one;
    result[one.kind] = { packetsReceived, packetsLost, framesDecoded, keyFramesDecoded, nackCount, pliCount, totalSamplesReceived, concealedSamples, freezeCount };
  }
  const session = answered.headers.get('location');
  const end = async () => (await fetch(session, { method: 'DELETE' })).status;
  result.deleted = [await end(), await end()];
  peer.close();
  return result;
}, { url: `${base}/v1/cameras/${camera}/whep`, seconds: Number(seconds), crash, relay });

console.log(JSON.stringify(seen));
if (crash) execFileSync('pkill', ['-KILL', '-P', String(process.pid)]);
else await browser.close();
process.exit(0);
