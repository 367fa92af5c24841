// One call of this browser, by WebRTC: what the unit sends, the microphone to it, and the voice of who has the floor. Connects
// again by itself, in the place of the session that was cut, until it is ended.

import { post, request } from './api.js';
import { iceServers, watchPictures } from './ice.js';
import { Microphone, reason } from './microphone.js';

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
// A connection that is not up after so long is given up.
const PATIENCE_MS = 8000;
// A line that is disturbed may mend itself; the gateway waits five seconds before it rings again.
const DISTURBED_MS = 500;
const KEY = 'chowki-call';

/** The call that this page was in when it was loaded anew, or null. */
export function interrupted() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

export class Call {
  #peer = null;
  #location = null;
  #timer = null;
  #wait = FIRST_WAIT_MS;
  #ended = false;
  #floorVoice = new Audio();
  #unitVoice = new Audio();
  #lens = null;
  #senders = [];
  /** Pictures of the unit, for a `video` element; another one after each reconnection. Its sound is played here. */
  stream = new MediaStream();
  /** `connecting`, `connected`, `cut` (connects again) or `over`. */
  state = 'connecting';
  /** This browser's number in the call, once the gateway has given it. */
  party = null;
  /** The number under which the gateway has told that this browser has the floor, or null. */
  floorAs = null;
  /** Whether the unit's pictures have stopped while the connection stands. */
  still = false;
  /** A key below `mic` that says what is wrong with the microphone, or null. */
  trouble = null;

  /**
   * `as`: `speak` takes the floor, `listen` does not. `face`: the unit has a screen. `by`: the operator's name, or ''.
   * `replaces`: the session of this browser that was cut. `onChange()` whenever something can be told anew;
   * `onRefused(error)` when the gateway does not take the call: 409 when another has the floor.
   */
  constructor(incident, address, { as, by, face, replaces = null, onChange, onLevel, onRefused }) {
    Object.assign(this, { incident, address, as, by, face, onChange, onRefused });
    this.#location = replaces;
    this.microphone = new Microphone({
      onTrack: (track) => this.#send(0, track),
      onTrouble: (trouble) => {
        this.trouble = trouble;
        onChange();
      },
      onLevel,
    });
  }

  /** Begins. Who takes the floor is heard (`voice`) or is not: where she would be, none takes it without a microphone. */
  async start(voice) {
    if (this.as === 'speak' && voice && !await this.microphone.open()) this.as = 'listen';
    if (!this.#ended) this.#connect();
  }

  get isOver() {
    return this.#ended;
  }

  get isMuted() {
    return this.microphone.muted;
  }

  get hasLens() {
    return Boolean(this.#lens);
  }

  /** Takes the floor: `false` when the microphone or the gateway refuses. */
  async speak() {
    if (!await this.microphone.open()) return false;
    await post(`${this.#location}/speak`);
    this.as = 'speak';
    this.#keep();
    return true;
  }

  hold = () => post(`${this.#location}/hold`);

  resume = () => post(`${this.#location}/resume`);

  /** `to`: `{ party }` or `{ group }`. */
  handOver = (to) => post(`${this.#location}/hand-over`, to);

  mute(muted) {
    this.microphone.mute(muted);
    this.onChange();
  }

  /** Another has the floor now: what this microphone hears goes nowhere, so it is closed. */
  yieldFloor() {
    if (this.as === 'listen') return;
    this.as = 'listen';
    this.#keep();
    this.#send(0, null);
    this.#closeMicrophone();
  }

  /** The floor was given to this browser. */
  async receiveFloor() {
    if (this.as === 'speak') return;
    this.as = 'speak';
    this.#keep();
    await this.microphone.open();
  }

  /** Shows the operator's face at a unit with a screen, or stops it. */
  async showLens(on) {
    if (!on) {
      this.#send(1, null);
      this.#lens?.stop();
      this.#lens = null;
    } else if (!this.#lens) {
      try {
        const seen = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 15 } } });
        [this.#lens] = seen.getVideoTracks();
        this.#lens.addEventListener('ended', () => this.showLens(false));
        if (this.#ended) this.#lens.stop();
        this.#send(1, this.#lens);
      } catch (error) {
        this.trouble ??= ['missing', 'busy'].includes(reason(error)) ? 'lensMissing' : 'lensDenied';
      }
    }
    this.onChange();
  }

  /** Hangs up: with the floor the call ends for all, without it only this browser leaves. */
  async hangUp() {
    if (this.#ended) return;
    const [location, peer] = [this.#location, this.#peer];
    this.#end(false);
    sessionStorage.removeItem(KEY);
    try {
      if (location) await request(location, { method: 'DELETE', keepalive: true });
    } catch (error) {
      // Ended by another meanwhile.
      if (error.status !== 404) throw error;
    } finally {
      peer?.close();
    }
  }

  #end(close) {
    this.#ended = true;
    this.state = 'over';
    clearTimeout(this.#timer);
    this.microphone.close();
    this.#lens?.stop();
    this.#lens = null;
    this.#floorVoice.srcObject = null;
    this.#unitVoice.srcObject = null;
    if (close) this.#peer?.close();
    this.#peer = null;
    this.onChange();
  }

  #closeMicrophone() {
    const { onTrack, onTrouble, onLevel, muted } = this.microphone;
    this.microphone.close();
    this.microphone = new Microphone({ onTrack, onTrouble, onLevel });
    this.microphone.muted = muted;
    onLevel(0);
    this.onChange();
  }

  #send(index, track) {
    this.#senders[index]?.replaceTrack(track).catch(() => {});
  }

  #keep() {
    sessionStorage.setItem(KEY, JSON.stringify({ incident: this.incident, address: this.address, as: this.as, by: this.by, face: this.face, replaces: this.#location }));
  }

  async #connect() {
    let peer = null;
    try {
      const servers = await iceServers();
      if (this.#ended) return;
      peer = new RTCPeerConnection({ iceServers: servers, bundlePolicy: 'max-bundle' });
      this.#peer = peer;
      this.#timer = setTimeout(() => this.#again(peer), PATIENCE_MS);
      const stream = new MediaStream();
      this.stream = stream;
      this.still = false;
      watchPictures(peer, (come) => {
        if (this.#peer !== peer) return;
        this.still = !come;
        this.onChange();
      });
      peer.onconnectionstatechange = () => this.#changed(peer);
      peer.ontrack = ({ track, transceiver }) => {
        const [unit, , floor] = peer.getTransceivers();
        if (transceiver === unit) play(this.#unitVoice, track);
        else if (transceiver === floor) play(this.#floorVoice, track);
        else stream.addTrack(track);
      };
      // In this order: the microphone and the unit's sound, pictures, the voice of who has the floor.
      const sound = peer.addTransceiver('audio', { direction: 'sendrecv' });
      const pictures = peer.addTransceiver('video', { direction: this.face ? 'sendrecv' : 'recvonly' });
      peer.addTransceiver('audio', { direction: 'recvonly' });
      if (this.face) preferH264(pictures);
      this.#senders = [sound.sender, pictures.sender];
      if (this.microphone.track) await sound.sender.replaceTrack(this.microphone.track);
      if (this.#lens) await pictures.sender.replaceTrack(this.#lens);
      await peer.setLocalDescription(await peer.createOffer());
      const asked = new URLSearchParams({ as: this.as, ...(this.by ? { by: this.by } : {}), ...(this.#location ? { replaces: this.#location.split('/').pop() } : {}) });
      const answer = await request(`${this.address}?${asked}`, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: peer.localDescription.sdp });
      const location = answer.headers.get('Location');
      if (this.#ended || this.#peer !== peer) {
        request(location, { method: 'DELETE', keepalive: true }).catch(() => {});
        return;
      }
      this.#location = location;
      this.party = Number(answer.headers.get('Chowki-Party'));
      this.#keep();
      await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
      this.onChange();
    } catch (error) {
      this.#refused(peer, error);
    }
  }

  #refused(peer, error) {
    if (this.#ended || this.#peer !== peer) return;
    // Told no, which asking again does not change: gone, not allowed, another has the floor, a codec this browser lacks.
    if ([403, 404, 406, 409, 410].includes(error.status)) {
      // The session to be replaced may be what is gone; then this is a new one.
      if (error.status === 404 && this.#location) {
        this.#location = null;
        this.#again(peer);
        return;
      }
      sessionStorage.removeItem(KEY);
      this.#end(true);
      this.onRefused(error);
      return;
    }
    this.#again(peer);
  }

  #changed(peer) {
    if (this.#ended || this.#peer !== peer) return;
    clearTimeout(this.#timer);
    if (peer.connectionState === 'connected') {
      this.#wait = FIRST_WAIT_MS;
      this.state = 'connected';
    } else if (peer.connectionState === 'disconnected') {
      this.#timer = setTimeout(() => this.#again(peer), DISTURBED_MS);
    } else if (['failed', 'closed'].includes(peer.connectionState)) {
      this.#again(peer);
      return;
    } else this.#timer = setTimeout(() => this.#again(peer), PATIENCE_MS);
    this.onChange();
  }

  #again(peer) {
    if (this.#ended || this.#peer !== peer) return;
    this.#peer = null;
    peer?.close();
    this.state = this.state === 'connecting' ? 'connecting' : 'cut';
    this.onChange();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
  }
}

/** Plays a voice; a page that was loaded anew is silent until it has been touched. */
function play(audio, track) {
  audio.srcObject = new MediaStream([track]);
  audio.play().catch(() => ['pointerdown', 'keydown'].forEach((touch) => addEventListener(touch, () => audio.srcObject && audio.play().catch(() => {}), { once: true })));
}

/** H.264 first in what is offered: the only codec that units show. */
export function preferH264(transceiver) {
  const { codecs } = RTCRtpReceiver.getCapabilities('video');
  const isH264 = (one) => one.mimeType === 'video/H264';
  transceiver.setCodecPreferences?.([...codecs.filter(isH264), ...codecs.filter((one) => !isH264(one))]);
}
