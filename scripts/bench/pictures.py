"""Clips whose pictures carry their number, and finding a picture again: by its pixels, or by its bytes in RTP packets."""
import os
import pathlib
import shutil
import subprocess
import zlib

import rig

# The number is 16 blocks of 40 x 40 pixels in the left upper corner, white for 1, the highest bit first: ten bits of number
# and six that prove it.
SECONDS, RATE = 20, 30
KNOWN = {((n << 6) | ((n * 37 + 11) & 63)): n for n in range(SECONDS * RATE)}


def clip(keys):
    """A folder as tests/rig/cameras.py wants it, whose H.264 has a key frame every `keys` seconds."""
    media = pathlib.Path.home() / ".cache/chowki-rig/media"
    rig.run(["sh", rig.ROOT / "tests/rig/media.sh", media])
    folder = media.with_name(f"numbered-{keys}s")
    if (folder / "cam_h264.h264").exists():
        return folder
    rig.say(f"makes the clip with a key frame every {keys} s")
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for other in media.glob("cam*"):
        if other.name != "cam_h264.h264":
            os.symlink(other, new / other.name)
    codes = b"".join(bytes(235 if code >> (15 - bit) & 1 else 16 for bit in range(16)) for code in KNOWN)
    filters = "[0]noise=alls=12:allf=t[p];[1]scale=640:40:flags=neighbor[n];[p][n]overlay=0:0:shortest=1"
    command = ["ffmpeg", "-y", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size=1920x1080:rate={RATE}:duration={SECONDS}",
               "-f", "rawvideo", "-pixel_format", "gray", "-video_size", "16x1", "-framerate", RATE, "-i", "-", "-filter_complex", filters,
               "-c:v", "libx264", "-preset", "veryfast", "-profile:v", "main", "-bf", 0, "-g", keys * RATE, "-keyint_min", keys * RATE,
               "-sc_threshold", 0, "-b:v", "4M", "-maxrate", "4M", "-bufsize", "4M", "-x264-params", "aud=1:slices=1", "-pix_fmt", "yuv420p",
               new / "cam_h264.h264"]
    subprocess.run([str(word) for word in command], input=codes, check=True)
    new.rename(folder)
    return folder


def numbers(folder):
    """The number of each picture of a clip, by the checksum of its slices."""
    found = {}
    # Access units begin with a delimiter (type 9), which cameras.py leaves out.
    for unit in (folder / "cam_h264.h264").read_bytes().split(b"\0\0\0\1\x09")[1:]:
        checksum = 0
        for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
            if nal[0] & 31 in (1, 5):
                checksum = zlib.crc32(nal, checksum)
        found[checksum] = len(found)
    assert len(found) == SECONDS * RATE, f"{folder}: {len(found)} different pictures; delete it"
    return found


class Assembler:
    """Pictures out of H.264's RTP packets (RFC 6184)."""

    def __init__(self, found):
        self.numbers, self.stamp, self.first, self.checksum = found, None, 0.0, 0

    def packet(self, data, when):
        """At the last packet of a picture: (number, when its first packet came, when this one did). Number None: incomplete."""
        if (stamp := data[4:8]) != self.stamp:
            self.stamp, self.first, self.checksum = stamp, when, 0
        begin = 12 + 4 * (data[0] & 15)
        if data[0] & 16:
            begin += 4 + 4 * int.from_bytes(data[begin + 2:begin + 4], "big")
        self.payload(data[begin:len(data) - (data[-1] if data[0] & 32 else 0)])
        return (self.numbers.get(self.checksum), self.first, when) if data[1] & 128 else None

    def payload(self, data):
        """One NAL unit, several of them, or a part of one."""
        kind = data[0] & 31 if data else 0
        if kind == 24:
            while len(data) > 3:
                size = int.from_bytes(data[1:3], "big")
                self.payload(data[3:3 + size])
                data = data[2 + size:]
        elif kind == 28 and data[1] & 31 in (1, 5):
            head = bytes([data[0] & 0xe0 | data[1] & 31]) if data[1] & 128 else b""
            self.checksum = zlib.crc32(head + data[2:], self.checksum)
        elif kind in (1, 5):
            self.checksum = zlib.crc32(data, self.checksum)
