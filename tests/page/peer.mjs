// The other end of WebRTC for the tests of the page: another page of the same browser, with a fake camera and microphone, that
// answers what the gateway would. All candidates are in its answers.

/**
 * In a new page of `context`: `answer(sdp)` gives `{ sdp, id }`, `cut(id)` ends that connection, `still(on)` stops
 * the pictures of all, also of those that connect meanwhile, or lets them go on, `received(id)` counts what came.
 */
export async function peer(context, address) {
  const page = await context.newPage();
  await page.goto(`${address}page/icon.svg`);
  await page.evaluate(() => { Object.assign(window, { peers: [], stopped: false }); });
  return {
    answer: (sdp) => page.evaluate(async (offer) => {
      const own = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
      const other = new RTCPeerConnection();
      const id = window.peers.push(other) - 1;
      await other.setRemoteDescription({ type: 'offer', sdp: offer });
      const sends = { audio: own.getAudioTracks()[0], video: own.getVideoTracks()[0] };
      for (const one of other.getTransceivers()) {
        const { kind } = one.receiver.track;
        one.direction = 'sendrecv';
        one.sender.sent = sends[kind];
        await one.sender.replaceTrack(window.stopped && kind === 'video' ? null : sends[kind]);
      }
      await other.setLocalDescription(await other.createAnswer());
      if (other.iceGatheringState !== 'complete') await new Promise((done) => { other.onicegatheringstatechange = () => other.iceGatheringState === 'complete' && done(); });
      return { sdp: other.localDescription.sdp, id };
    }, sdp),
    still: (on) => page.evaluate((stops) => {
      window.stopped = stops;
      for (const { sender, receiver } of window.peers.flatMap((one) => one.getTransceivers())) {
        if (receiver.track.kind === 'video') sender.replaceTrack(stops ? null : sender.sent).catch(() => {});
      }
    }, on),
    cut: (id) => page.evaluate((which) => window.peers[which].close(), id),
    received: (id) => page.evaluate(async (which) => {
      const seen = { audio: 0, video: 0, codec: '' };
      const stats = await window.peers[which].getStats();
      stats.forEach((one) => {
        if (one.type !== 'inbound-rtp') return;
        seen[one.kind] += one.packetsReceived;
        if (one.kind === 'video') seen.codec = stats.get(one.codecId)?.mimeType ?? '';
      });
      return seen;
    }, id),
  };
}
