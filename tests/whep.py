"""Plays a camera of the gateway by WHEP (RFC 9725) with aiortc, which nobody here wrote and which is no browser.

python3 whep.py http://HOST:PORT CAMERA SECONDS [TOKEN]: one line of JSON: pictures decoded and their size, samples that were not
silence and their frequency, and what the gateway said to two DELETEs at the end. Exit status 77: aiortc is
not installed; scripts/install test does that.
"""
import array
import asyncio
import json
import statistics
import sys
import urllib.error
import urllib.request

try:
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamError
except ImportError:
    sys.exit(77)


def call(method, url, token, body=None):
    """(status, headers, body) of a request, whatever the status."""
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()


async def watch(track, seen, periods):
    """Counts what is decoded until the track ends."""
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if track.kind == "video":
            seen["pictures"] += 1
            seen["size"] = [frame.width, frame.height]
            continue
        samples = array.array("h", bytes(frame.planes[0])[:2 * frame.samples * len(frame.layout.channels)])[::len(frame.layout.channels)]
        if max(map(abs, samples)) < 500:
            continue
        seen["samples"] += len(samples)
        # Where it rises through zero, between two samples.
        rises = [i + a / (a - b) for i, (a, b) in enumerate(zip(samples, samples[1:])) if a < 0 <= b]
        periods += [(b - a) / frame.sample_rate for a, b in zip(rises, rises[1:])]


async def main():
    base, camera, seconds, *token = sys.argv[1:]
    token = token[0] if token else None
    seen = {"pictures": 0, "samples": 0}
    peer = RTCPeerConnection()
    tasks, periods = [], []
    peer.on("track", lambda track: tasks.append(asyncio.ensure_future(watch(track, seen, periods))))
    peer.addTransceiver("audio", direction="recvonly")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp.encode()
    status, headers, answer = await asyncio.to_thread(call, "POST", f"{base}/v1/cameras/{camera}/whep", token, offer)
    seen["status"] = status
    if status != 201:
        seen["answer"] = answer
    else:
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await asyncio.sleep(float(seconds))
        seen["state"] = peer.connectionState
        end = lambda: asyncio.to_thread(call, "DELETE", base + headers["location"], token)
        seen["deleted"] = [(await end())[0], (await end())[0]]
    await peer.close()
    for task in tasks:
        await task
    seen["hertz"] = round(1 / statistics.median(periods)) if periods else 0
    print(json.dumps(seen), flush=True)


asyncio.run(main())
