// What every connection of a page by WebRTC needs: the STUN and TURN servers that the config names (none, where browsers reach the
// gateway directly), and whether its pictures go on coming.

import { request } from './api.js';

// Credentials of TURN servers end some day.
const KEPT_MS = 300000;
// A connection goes without them rather than wait longer.
const PATIENCE_MS = 5000;
// Pictures that have not come for so long have stopped.
const STILL_MS = 3000;
const LOOK_MS = 500;

let held = null;
let heldAt = 0;

/** For `new RTCPeerConnection({ iceServers })`; a unit asks at a path of its own. */
export async function iceServers(path = '/v1/ice-servers') {
  if (held && performance.now() - heldAt < KEPT_MS) return held;
  const answer = await request(path, { signal: AbortSignal.timeout(PATIENCE_MS) }).then((given) => given.json()).catch(() => null);
  // Asked again the next time.
  if (!answer) return held ?? [];
  held = (answer.ice_servers ?? []).map(({ urls, username, credential }) => ({ urls, ...(username ? { username, credential } : {}) }));
  heldAt = performance.now();
  return held;
}

/**
 * Until `peer` is closed: `onChange(true)` when pictures come from it, `onChange(false)` when they have stopped. What is decoded
 * counts, since a page in the background draws nothing.
 */
export function watchPictures(peer, onChange) {
  let [frames, at, come] = [0, 0, false];
  const timer = setInterval(async () => {
    if (peer.signalingState === 'closed') return clearInterval(timer);
    let decoded = 0;
    (await peer.getStats().catch(() => [])).forEach((one) => {
      if (one.type === 'inbound-rtp' && one.kind === 'video') decoded += one.framesDecoded ?? 0;
    });
    const now = performance.now();
    if (decoded > frames) [frames, at] = [decoded, now];
    const was = come;
    come = frames > 0 && now - at < STILL_MS;
    if (come !== was) onChange(come);
    return undefined;
  }, LOOK_MS);
}
