"""A WebRTC client that nobody here wrote and that is no browser: aiortc plays a camera of the gateway, or takes part in a call.

python3 rtc.py watch http://HOST:PORT CAMERA SECONDS [TOKEN]: by WHEP (draft-ietf-wish-whep).
python3 rtc.py call http://HOST:PORT INCIDENT SECONDS NAME HERTZ: takes the floor of that incident's call and says a tone.

Prints one line of JSON: pictures decoded and their size, samples that were not silence and their frequency, and what the gateway
said to two DELETEs at the end. Exit status 77: aiortc is not installed; scripts/install test does that.
"""
import array
import asyncio
import fractions
import json
import math
import statistics
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

try:
    from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamError
    from av import AudioFrame
except ImportError:
    sys.exit(77)


def request(method, url, token, body=None):
    """(status, headers, body) of a request, whatever the status."""
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {token}"} if token else {})
    asked = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()


class Tone(MediaStreamTrack):
    """What the microphone hears: a tone, in pieces of 20 ms."""

    kind = "audio"
    RATE, PIECE = 48_000, 960

    def __init__(self, hertz):
        super().__init__()
        self.hertz, self.sent, self.begun = hertz, 0, time.monotonic()

    async def recv(self):
        """The next piece, when it is time."""
        await asyncio.sleep(max(0, self.begun + self.sent / self.RATE - time.monotonic()))
        wave = (math.sin(2 * math.pi * self.hertz * (self.sent + i) / self.RATE) for i in range(self.PIECE))
        frame = AudioFrame(format="s16", layout="mono", samples=self.PIECE)
        frame.planes[0].update(array.array("h", (int(8_000 * one) for one in wave)).tobytes())
        frame.pts, frame.sample_rate, frame.time_base = self.sent, self.RATE, fractions.Fraction(1, self.RATE)
        self.sent += self.PIECE
        return frame


async def take(track, seen, periods):
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


async def session(base, path, seconds, token=None, tone=None):
    """One from its offer to its end."""
    seen = {"pictures": 0, "samples": 0}
    peer = RTCPeerConnection()
    tasks, periods = [], []
    peer.on("track", lambda track: tasks.append(asyncio.ensure_future(take(track, seen, periods))))
    peer.addTransceiver(tone or "audio", direction="sendrecv" if tone else "recvonly")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp.encode()
    status, headers, answer = await asyncio.to_thread(request, "POST", base + path, token, offer)
    seen["status"] = status
    if status != 201:
        seen["answer"] = answer
    else:
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await asyncio.sleep(float(seconds))
        seen["state"] = peer.connectionState
        end = lambda: asyncio.to_thread(request, "DELETE", base + headers["location"], token)
        seen["deleted"] = [(await end())[0], (await end())[0]]
    await peer.close()
    for task in tasks:
        await task
    seen["hertz"] = round(1 / statistics.median(periods)) if periods else 0
    print(json.dumps(seen), flush=True)


match sys.argv[1:]:
    case ["watch", base, camera, seconds, *token]:
        asyncio.run(session(base, f"/v1/cameras/{camera}/whep", seconds, *token))
    case ["call", base, incident, seconds, name, hertz]:
        who = urllib.parse.urlencode({"as": "speak", "by": name})
        asyncio.run(session(base, f"/v1/incidents/{incident}/call?{who}", seconds, tone=Tone(float(hertz))))
    case _:
        sys.exit(__doc__)
