// The STUN and TURN servers that the config names; none, where browsers reach the gateway directly.

import { json } from './api.js';

// Credentials of TURN servers end some day.
const KEPT_MS = 300000;

let held = null;
let heldAt = 0;

/** For `new RTCPeerConnection({ iceServers })`; a unit asks at a path of its own. */
export async function iceServers(path = '/v1/ice-servers') {
  if (held && performance.now() - heldAt < KEPT_MS) return held;
  const answer = await json(path).catch(() => ({ ice_servers: held ?? [] }));
  held = (answer.ice_servers ?? []).map(({ urls, username, credential }) => ({ urls, ...(username ? { username, credential } : {}) }));
  heldAt = performance.now();
  return held;
}
