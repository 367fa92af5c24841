// The line of a unit with a screen to the gateway, by WebRTC: its camera and microphone all the time, so that the seconds before
// a press are held, and the operator's face and voice back. Connects again for ever.

import { request } from './api.js';
import { preferH264 } from './call.js';
import { iceServers, watchPictures } from './ice.js';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;
const PATIENCE_MS = 10000;
const DISTURBED_MS = 2000;
// A camera or microphone that is missing is looked for so often.
const LOOK_MS = 15000;
const WANTED = { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true }, video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 20, max: 30 } } };

export class UnitLine {
  #unit;
  #peer = null;
  #timer = null;
  #wait = FIRST_WAIT_MS;
  #tracks = { audio: null, video: null };
  #opening = false;
  #looked = false;
  /** Whether the connection stands. */
  up = false;
  /** When it last went down, on the clock of `performance.now()`. */
  downAt = 0;
  /** Whether the operator's pictures come. */
  seen = false;
  /** Whether the gateway does not take this unit's token. */
  refused = false;

  /** For `button`, with the operator's pictures and voice in `video`. `onChange()` when `up`, `seen` or `missing` changes. */
  constructor(button, video, onChange) {
    this.#unit = `/v1/units/${encodeURIComponent(button)}`;
    this.video = video;
    this.onChange = onChange;
    this.#open().then(() => this.#connect());
    setInterval(() => this.#open(), LOOK_MS);
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#open());
  }

  /** Whether its camera or its microphone does not work. */
  get missing() {
    return this.#looked && (!this.#tracks.audio || !this.#tracks.video);
  }

  /** Opens what is not open: camera and microphone each for themselves, so that one that is broken leaves the other. */
  async #open() {
    if (this.#opening) return;
    this.#opening = true;
    for (const kind of ['audio', 'video']) {
      if (this.#tracks[kind]?.readyState === 'live') continue;
      const stream = await navigator.mediaDevices?.getUserMedia({ [kind]: WANTED[kind] }).catch(() => null);
      const [track] = stream?.getTracks() ?? [];
      this.#tracks[kind] = track ?? null;
      track?.addEventListener('ended', () => {
        this.#tracks[kind] = null;
        this.onChange();
        this.#open();
      });
      this.#sender(kind)?.replaceTrack(this.#tracks[kind]).catch(() => {});
    }
    [this.#opening, this.#looked] = [false, true];
    this.onChange();
  }

  #sender = (kind) => this.#peer?.getTransceivers()[kind === 'audio' ? 0 : 1]?.sender;

  async #connect() {
    let peer = null;
    try {
      const servers = await iceServers(`${this.#unit}/ice-servers`);
      peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: 'max-bundle' });
      this.#peer = peer;
      this.#timer = setTimeout(() => this.#again(peer), PATIENCE_MS);
      const stream = new MediaStream();
      peer.ontrack = ({ track }) => stream.addTrack(track);
      peer.onconnectionstatechange = () => this.#changed(peer);
      watchPictures(peer, (come) => {
        if (this.#peer !== peer) return;
        this.seen = come;
        this.onChange();
      });
      this.video.srcObject = stream;
      const { audio, video } = this.#tracks;
      peer.addTransceiver(audio ?? 'audio', { direction: 'sendrecv' });
      preferH264(peer.addTransceiver(video ?? 'video', { direction: 'sendrecv', sendEncodings: [{ maxBitrate: 2500000 }] }));
      await peer.setLocalDescription(await peer.createOffer());
      const answer = await request(`${this.#unit}/session`, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: peer.localDescription.sdp, signal: AbortSignal.timeout(PATIENCE_MS) });
      this.refused = false;
      if (this.#peer !== peer) return;
      await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
    } catch (error) {
      this.refused = error.status === 401;
      this.#again(peer);
    }
  }

  #changed(peer) {
    if (this.#peer !== peer) return;
    clearTimeout(this.#timer);
    const { connectionState: state } = peer;
    this.#stands(state === 'connected');
    if (this.up) {
      this.#wait = FIRST_WAIT_MS;
      // A page that nobody has touched yet shows the operator, if need be without a voice.
      this.video.play().catch(() => {});
    } else if (state === 'disconnected') this.#timer = setTimeout(() => this.#again(peer), DISTURBED_MS);
    else if (['failed', 'closed'].includes(state)) this.#again(peer);
    else this.#timer = setTimeout(() => this.#again(peer), PATIENCE_MS);
    this.onChange();
  }

  #stands(up) {
    if (this.up && !up) this.downAt = performance.now();
    this.up = up;
  }

  #again(peer) {
    if (this.#peer !== peer) return;
    this.#peer = null;
    this.#stands(false);
    this.seen = false;
    peer?.close();
    this.video.srcObject = null;
    this.onChange();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), this.#wait * (0.75 + Math.random() / 2));
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}
