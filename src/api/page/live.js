// A camera live in a `video` element, by WebRTC (WHEP): connects, and connects again until it is ended.

import { request } from './api.js';
import { iceServers, watchPictures } from './ice.js';

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;
// A connection that brought no picture for so long is given up.
const PATIENCE_MS = 8000;

export class LiveView {
  #path;
  #peer = null;
  #session = null;
  #ended = false;
  #wait = FIRST_WAIT_MS;
  #timer = null;
  #frame = null;
  #state = null;

  /** Shows `path` (`/v1/cameras/ID/whep`) in `video`. `onState('waiting' | 'live' | 'lost', why)` whenever that changes. */
  constructor(video, path, onState) {
    this.video = video;
    this.#path = path;
    this.onState = onState;
    this.#connect();
  }

  /** Ends it for good. */
  destroy() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#hangUp();
    this.video.srcObject = null;
  }

  async #connect() {
    this.#say('waiting');
    let peer = null;
    try {
      const servers = await iceServers();
      if (this.#ended) return;
      peer = new RTCPeerConnection({ iceServers: servers });
      this.#peer = peer;
      this.#timer = setTimeout(() => this.#again(peer, ''), PATIENCE_MS);
      const stream = new MediaStream();
      peer.ontrack = ({ track }) => stream.addTrack(track);
      peer.onconnectionstatechange = () => ['failed', 'disconnected', 'closed'].includes(peer.connectionState) && this.#again(peer, '');
      // The first picture at the moment at which it is seen; from then on whether they go on.
      this.#frame = this.video.requestVideoFrameCallback(() => this.#come(peer, true));
      watchPictures(peer, (come) => this.#come(peer, come));
      this.video.srcObject = stream;
      peer.addTransceiver('audio', { direction: 'recvonly' });
      peer.addTransceiver('video', { direction: 'recvonly' });
      await peer.setLocalDescription(await peer.createOffer());
      const answer = await request(this.#path, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: peer.localDescription.sdp });
      const session = answer.headers.get('Location');
      if (this.#ended || this.#peer !== peer) {
        forget(session);
        return;
      }
      this.#session = session;
      await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
    } catch (error) {
      // Not acceptable: no other try would bring a codec that this browser has.
      if (error.status === 406) this.#wait = LONGEST_WAIT_MS * 6;
      this.#again(peer, error.message);
    }
  }

  /** Pictures come, or have stopped while the connection stands: then the next one is waited for. */
  #come(peer, come) {
    if (this.#peer !== peer) return;
    if (come) {
      clearTimeout(this.#timer);
      this.#wait = FIRST_WAIT_MS;
    }
    this.#say(come ? 'live' : 'lost', '');
  }

  #say(state, why) {
    if (state === this.#state && !why) return;
    this.#state = state;
    this.onState(state, why);
  }

  /** Tries again after a while, longer each time. */
  #again(peer, why) {
    if (this.#ended || this.#peer !== peer) return;
    this.#hangUp();
    this.#say('lost', why);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), this.#wait * (0.75 + Math.random() / 2));
    this.#wait = Math.min(this.#wait * 2, Math.max(this.#wait, LONGEST_WAIT_MS));
  }

  #hangUp() {
    const [peer, session] = [this.#peer, this.#session];
    [this.#peer, this.#session] = [null, null];
    this.video.cancelVideoFrameCallback(this.#frame);
    // The gateway first: a peer that closes ends the session by itself, and then there is none to delete.
    if (session && peer?.connectionState === 'connected') forget(session).finally(() => peer.close());
    else peer?.close();
  }
}

/** Tells the gateway that nobody watches any more; it finds out by itself if this does not get through. */
const forget = (session) => request(session, { method: 'DELETE', keepalive: true }).catch(() => {});
