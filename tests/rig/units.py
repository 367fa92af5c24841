#!/usr/bin/env python3
"""Compares what cameras sent with what headquarters has, access unit by access unit. Standard library and ffmpeg only:
nothing of the gateway takes part.

    units.py PLAN     writes what it found to standard output as JSON; exit status 1 when anything is missing or wrong

What was sent is written down by cameras.py --log, a line for each access unit as its first packet leaves the camera's
payloader, in MOUNT.sent: track, codec, session, number in it, RTP timestamp, RTP sequence number, microseconds since
1970, SHA-256. What headquarters has is read from its store (S3 without login, or a directory) below
DISTRICT/recordings/CAMERA/, and taken apart by ffmpeg.

The hash is of the NAL units of an access unit, each behind its length in four bytes, without delimiters and parameter
sets: those are moved on the way, by design. Of AAC it is of the whole access unit.

PLAN is JSON: {"sent": DIR, "store": "http(s)://HOST/BUCKET" (with "ca": FILE) or DIR, "district": ID, "work": DIR,
"cameras": [{"id": ID, "mount": NAME, "windows": [[FROM, TO], ...]}]}, times in microseconds since 1970.
"""
import collections
import hashlib
import http.client
import json
import pathlib
import re
import ssl
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree
from datetime import datetime

# What a decoder must know beside pictures, and delimiters: NAL unit types (H.264 table 7-1, H.265 table 7-1).
MOVED = {"h264": (7, 8, 9), "h265": (32, 33, 34, 35)}
# Sound that the gateway makes into Opus, by design: its cover is compared, not its bytes.
TRANSCODED = ("pcmu", "pcma")
# Where a stretch follows another within this, it goes on.
JITTER_US = 500_000
# A frame's captured time against the moment it left the camera: a camera's clock this near to ours is trusted.
TRUSTED_US = 1_000_000
# Names a mark in an SEI message (H.264 D.1.7); no byte of it looks like a start code's.
UUID = b"chowki-unit-mark"
LOGIN = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
                          "SignedHeaders=host, Signature=0"}


# ---- access units

def nal_units(data):
    """The NAL units of an Annex B stream."""
    starts = [m.end() for m in re.finditer(b"\x00\x00\x01", data)]
    ends = [s - 3 for s in starts[1:]] + [len(data)]
    return [data[a:b].rstrip(b"\x00") for a, b in zip(starts, ends)]


def kind(codec, nal):
    """A NAL unit's type."""
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def is_picture(codec, nal):
    """Whether it is a slice."""
    return kind(codec, nal) in range(1, 6) if codec == "h264" else kind(codec, nal) < 32


def mark(codec, data, text):
    """An access unit as a camera sends it, made unlike any other by a text, and the SHA-256 to find it by."""
    text = text.encode()
    if codec == "aac":
        # A data stream element (ISO/IEC 14496-3 table 4.10), which decoders pass over: two bytes of head, then bytes.
        data = bytes([0x80, len(text)]) + data
        data = data[:2] + text + data[2:]
        return data, hashlib.sha256(data).hexdigest()
    if codec not in MOVED:
        return data, hashlib.sha256(data).hexdigest()
    head = b"\x06" if codec == "h264" else b"\x4e\x01"
    message = head + bytes([5, len(UUID) + len(text)]) + UUID + text + b"\x80"
    nals = nal_units(data)
    first = next(i for i, nal in enumerate(nals) if is_picture(codec, nal))
    nals.insert(first, message)
    return b"".join(b"\x00\x00\x00\x01" + nal for nal in nals), digest(codec, nals)


def digest(codec, nals):
    """The SHA-256 of an access unit wherever it is."""
    kept = (nal for nal in nals if kind(codec, nal) not in MOVED[codec])
    return hashlib.sha256(b"".join(len(nal).to_bytes(4, "big") + nal for nal in kept)).hexdigest()


Sent = collections.namedtuple("Sent", "session n rtp at sha")
Held = collections.namedtuple("Held", "sha ticks")


def sent_by(path):
    """What a mount sent: by track, its codec and its access units in order. The last line may be half written."""
    tracks = {}
    text = path.read_text()
    for line in text[: text.rfind("\n") + 1].splitlines():
        track, codec, session, n, rtp, _seq, at, sha = line.split(" ")
        tracks.setdefault(track, (codec, []))[1].append(Sent(int(session), int(n), int(rtp), int(at), sha))
    return tracks


# ---- headquarters

class Directory:
    """A store that is a directory."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def names(self, prefix):
        return sorted(str(p.relative_to(self.path)) for p in (self.path / prefix).rglob("*") if p.is_file())

    def get(self, name):
        return (self.path / name).read_bytes()


class S3:
    """A bucket of moto, which believes everybody who says who he is."""

    def __init__(self, url, ca):
        url = urllib.parse.urlsplit(url)
        if url.scheme == "https":
            tls = ssl.create_default_context(cafile=ca)
            self.http = http.client.HTTPSConnection(url.hostname, url.port, timeout=60, context=tls)
        else:
            self.http = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        self.bucket = url.path

    def ask(self, path):
        self.http.request("GET", path, headers=LOGIN)
        answer = self.http.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"GET {path}: {answer.status}")
        return body

    def names(self, prefix):
        names, more = [], ""
        while True:
            words = {"list-type": "2", "prefix": prefix, **({"continuation-token": more} if more else {})}
            page = xml.etree.ElementTree.fromstring(self.ask(f"{self.bucket}?{urllib.parse.urlencode(words)}"))
            names += [e.text for e in page.iterfind("{*}Contents/{*}Key")]
            more = page.findtext("{*}NextContinuationToken")
            if not more:
                return sorted(names)

    def get(self, name):
        return self.ask(f"{self.bucket}/{urllib.parse.quote(name)}")


def store_of(plan):
    """The store that a plan names."""
    place = plan["store"]
    return S3(place, plan.get("ca")) if place.startswith("http") else Directory(place)


def micros(text):
    """A time of the lists, in microseconds since 1970."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6)


def intervals(lists):
    """What `coverage.json` of consecutive days says is there, over midnight too."""
    joined = []
    for interval in (interval for day in lists for interval in day["intervals"]):
        begin, end = micros(interval["from"]), micros(interval["to"])
        if joined and begin - joined[-1][1] <= JITTER_US:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return joined


class Recordings:
    """Everything that headquarters has of a camera: read once, checked against its own lists."""

    def __init__(self, store, folder):
        self.faults, self.stretches, self.files, self.gaps, self.lost, self.lists = [], [], {}, [], [], []
        names = store.names(folder + "/")
        for day in sorted({n.rsplit("/", 1)[0] for n in names}):
            self.day(store, day, {n.rsplit("/", 1)[1] for n in names if n.startswith(day + "/")})
        self.stretches.sort()
        self.intervals = intervals(self.lists)

    def day(self, store, day, there):
        for name in ("coverage.json", "index.m3u8"):
            if name not in there:
                self.faults.append(f"{day}: no {name}")
                return
        listed = json.loads(store.get(f"{day}/coverage.json"))
        self.gaps += [(micros(g["from"]), micros(g["to"]), g["reason"]) for g in listed["gaps"]]
        self.lists.append(listed)
        for name, what in listed["objects"].items():
            if name not in there:
                self.faults.append(f"{day}/{name} is listed and not there")
                continue
            body = store.get(f"{day}/{name}")
            if (len(body), hashlib.sha256(body).hexdigest()) != (what["size"], what["sha256"]):
                self.faults.append(f"{day}/{name} is not what is listed")
            self.files[f"{day}/{name}"] = body
            if stretch := what.get("stretch"):
                begin, end = micros(stretch["from"]), micros(stretch["to"])
                init, anew = f"{day}/{stretch['init']}", stretch["discontinuity"]
                self.stretches.append((begin, end, f"{day}/{name}", init, anew))
                self.lost += [(begin, end)] if stretch["lost"] else []
        # What has just been put is listed next.
        newest = max((n for n, what in listed["objects"].items() if what.get("stretch")), default="")
        for name in there - set(listed["objects"]) - {"coverage.json", "index.m3u8"}:
            if name < newest:
                self.faults.append(f"{day}/{name} is there and not listed")
        playlist = [line for line in store.get(f"{day}/index.m3u8").decode().splitlines() if line and line[0] != "#"]
        of_day = [name.rsplit("/", 1)[1] for _, _, name, _, _ in sorted(self.stretches) if name.startswith(day + "/")]
        if playlist != of_day:
            self.faults.append(f"{day}/index.m3u8 does not list what coverage.json does, in order")

    def runs(self):
        """Stretches that make one MP4 together: one init segment, and each goes on where the one before ended."""
        runs = []
        for begin, end, name, init, anew in self.stretches:
            last = runs[-1] if runs else None
            if last and not anew and init == last["init"] and abs(begin - last["to"]) <= JITTER_US:
                last["names"].append(name)
                last["to"] = end
            else:
                runs.append({"from": begin, "to": end, "init": init, "names": [name]})
        return runs


def demuxed(path, codec):
    """The access units of an MP4 by ffmpeg, and their time scale."""
    track, raw = "v" if codec in MOVED else "a", path.with_suffix(".raw")
    same = ["-map", f"0:{track}:0", "-c", "copy", "-avoid_negative_ts", "disabled"]
    command = ["ffmpeg", "-v", "error", "-y", "-copyts", "-i", path, *same, "-f", "data", raw, *same]
    command += ["-f", "framehash", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode or done.stderr:
        raise ValueError(f"ffmpeg: {done.stderr.strip()[:500]}")
    lines = done.stdout.splitlines()
    scale = next(int(line.rsplit("/", 1)[1]) for line in lines if line.startswith("#tb 0:"))
    rows = [[int(n) for n in line.split(",")[1:5]] for line in lines if line and line[0] != "#"]
    units = []
    with open(raw, "rb") as file:
        for _, pts, _, size in rows:
            data = file.read(size)
            sha = digest(codec, lengthy(data)) if codec in MOVED else hashlib.sha256(data).hexdigest()
            units.append(Held(sha, pts))
        if file.read(1):
            raise ValueError("ffmpeg wrote more than it listed")
    raw.unlink()
    return units, scale


def lengthy(data):
    """The NAL units of a sample of MP4: each behind its length in four bytes (ISO/IEC 14496-15)."""
    nals, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        nals.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(data) or not all(nals):
        raise ValueError("a sample whose NAL units do not fill it")
    return nals


# ---- the comparison

class Track:
    """One track of a camera, as sent and as held."""

    def __init__(self, codec, sent):
        self.codec, self.sent = codec, sent
        self.index = {unit.sha: i for i, unit in enumerate(sent)}
        self.seen = collections.Counter()
        self.last, self.apart = None, []
        self.unknown = self.disordered = self.wrong_ticks = self.held = 0
        self.faults = []
        if codec not in TRANSCODED and len(self.index) != len(sent):
            self.faults.append("the camera sent an access unit twice: nothing can be proven")
        for a, b in zip(sent, sent[1:]):
            if a.session == b.session and b.n != a.n + 1:
                self.faults.append(f"what was sent is not all written down: {a.n} to {b.n}")

    def run(self, held, scale, rate, begins):
        """A run of headquarters: its access units in order, and when it says that the first was captured."""
        if scale != rate:
            self.faults.append(f"{self.codec} has a time scale of {scale}")
        base = None
        for unit in held:
            self.held += 1
            self.seen[unit.sha] += 1
            at = self.index.get(unit.sha)
            if at is None:
                self.unknown += 1
                continue
            if self.last is not None and at <= self.last and self.seen[unit.sha] == 1:
                self.disordered += 1
            self.last, was = at, self.sent[at]
            if base is None:
                base = (unit.ticks, was)
                if begins is not None:
                    self.apart.append(begins - was.at)
                ticks = 0
            else:
                # RTP timestamps have 32 bits: near to the last one.
                ticks += (was.rtp - before.rtp + (1 << 31)) % (1 << 32) - (1 << 31)
            before = was
            if unit.ticks - base[0] != ticks:
                self.wrong_ticks += 1

    def found(self, windows):
        """What is to be said of it."""
        wanted = [u for u in self.sent if any(a <= u.at <= b for a, b in windows)]
        missing = [u for u in wanted if not self.seen[u.sha]]
        twice = sum(1 for n in self.seen.values() if n > 1)
        return {"codec": self.codec, "sent": len(wanted), "there": len(wanted) - len(missing), "missing": len(missing),
                "missing_at": spans(missing), "held_in_all": self.held, "twice": twice, "unknown": self.unknown,
                "out_of_order": self.disordered, "wrong_ticks": self.wrong_ticks}


def spans(units):
    """From when to when access units are missing: [seconds since 1970, seconds, how many]."""
    out = []
    for unit in units:
        if out and unit.at - out[-1][1] < JITTER_US:
            out[-1][1:] = [unit.at, out[-1][2] + 1]
        else:
            out.append([unit.at, unit.at, 1])
    return [[a / 1e6, round((b - a) / 1e6, 3), n] for a, b, n in out]


def compare(plan, camera):
    """A camera: what was found, with `faults` as sentences; none when every access unit is there."""
    windows = [tuple(w) for w in camera["windows"]]
    tracks = {name: Track(*of) for name, of in sent_by(pathlib.Path(plan["sent"]) / f"{camera['mount']}.sent").items()}
    video, audio = tracks["video"], tracks.get("audio")
    store = store_of(plan)
    recordings = Recordings(store, f"{plan['district']}/recordings/{camera['id']}")
    faults = recordings.faults
    silence = []
    file = pathlib.Path(plan["work"]) / f"{camera['id']}.mp4"
    runs = recordings.runs()
    for run in runs:
        if run["init"] not in recordings.files:
            faults.append(f"{run['init']}: no such init segment")
            continue
        with open(file, "wb") as out:
            for name in (run["init"], *run["names"]):
                out.write(recordings.files[name])
        try:
            held, scale = demuxed(file, video.codec)
            video.run(held, scale, 90_000, run["from"])
            begins, ends = held[0].ticks / scale, held[-1].ticks / scale
            if audio:
                held, scale = demuxed(file, audio.codec)
                if audio.codec in TRANSCODED:
                    audio.held += len(held)
                    silence += holes(held, scale, begins, ends, run["from"])
                else:
                    audio.run(held, scale, 16_000, None)
        except (ValueError, IndexError, StopIteration) as error:
            faults.append(f"{run['names'][0]} and after: {error}")
    file.unlink(missing_ok=True)
    found = {"id": camera["id"], "mount": camera["mount"], "seconds": sum(b - a for a, b in windows) / 1e6,
             "runs": len(runs), "objects": len(recordings.files), "bytes": sum(map(len, recordings.files.values())),
             "video": video.found(windows)}
    if audio and audio.codec in TRANSCODED:
        silent = [hole for hole in silence if any(a < hole[1] and hole[0] < b for a, b in windows)]
        found["audio"] = {"codec": audio.codec, "packets": audio.held, "holes": silent}
        if not audio.held:
            faults.append("no sound")
        faults += [f"no sound from {a / 1e6:.3f} for {(b - a) / 1e6:.3f} s" for a, b in silent]
    elif audio:
        found["audio"] = audio.found(windows)
    if video.apart:
        found["captured_minus_sent_ms"] = [round(min(video.apart) / 1000, 1), round(max(video.apart) / 1000, 1)]
        if max(map(abs, video.apart)) > TRUSTED_US:
            faults.append(f"captured at another time than sent: {found['captured_minus_sent_ms']} ms")
    for name in ("video", "audio"):
        faults += [f"{name}: {fault}" for fault in (tracks[name].faults if name in tracks else [])]
        faults += [f"{name}: {n} {what.replace('_', ' ')}" for what, n in found.get(name, {}).items()
                   if what in ("missing", "twice", "unknown", "out_of_order", "wrong_ticks") and n]
    if not found["video"]["sent"]:
        faults.append("the camera sent nothing: nothing is proven")
    for a, b in windows:
        faults += [f"coverage.json knows a gap, {why}, from {x / 1e6} for {(y - x) / 1e6:.3f} s"
                   for x, y, why in recordings.gaps if x < b and a < y]
        faults += [f"packets were lost from {x / 1e6} to {y / 1e6}" for x, y in recordings.lost if x < b and a < y]
        # It goes by when frames were captured; the log, by when they left.
        if not any(x <= a + TRUSTED_US and b - TRUSTED_US <= y for x, y in recordings.intervals):
            faults.append(f"coverage.json has no one interval from {a / 1e6} to {b / 1e6}: {recordings.intervals}")
    return {**found, "faults": faults}


def holes(held, scale, begins, ends, at):
    """Where a run of pictures has no sound, as times since 1970 in microseconds: where a packet does not follow the one
    before it by what is usual. At the run's ends there may be a little less."""
    times = [unit.ticks for unit in held]
    steps = collections.Counter(b - a for a, b in zip(times, times[1:]))
    if not steps:
        return [(at, round(at + (ends - begins) * 1e6))]
    usual = steps.most_common(1)[0][0]
    out = [((a + usual) / scale, b / scale) for a, b in zip(times, times[1:]) if b - a != usual]
    out += [(begins, times[0] / scale)] if times[0] / scale > begins + 0.1 else []
    out += [(times[-1] / scale, ends)] if times[-1] / scale < ends - 0.2 else []
    return [(round(at + (a - begins) * 1e6), round(at + (b - begins) * 1e6)) for a, b in out]


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 64)
    plan = json.loads(pathlib.Path(sys.argv[1]).read_text())
    found = [compare(plan, camera) for camera in plan["cameras"]]
    print(json.dumps(found, indent=1))
    sys.exit(1 if any(camera["faults"] for camera in found) else 0)


if __name__ == "__main__":
    main()
