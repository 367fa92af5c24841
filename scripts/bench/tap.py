"""A reader beside the servers that says when each picture left the camera, by the kernel's clock of arrivals."""
import hashlib
import re
import socket
import struct
import threading
import time

from pictures import Assembler

SO_TIMESTAMPNS = 35


def stamped(sock):
    """Has the kernel note when what is read arrived."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)


def arrival(control):
    """Seconds of the monotonic clock, out of what came with the data."""
    shift = time.time() - time.monotonic()
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanos = struct.unpack("qq", data[:16])
            return seconds + nanos / 1e9 - shift
    return time.monotonic()


class Tap(threading.Thread):
    """Reads the video of a camera (admin:test) over `tcp` or `udp` from when it is made until it is closed."""

    def __init__(self, url, numbers, transport):
        super().__init__(daemon=True)
        self.url, self.transport = url, transport
        self.pictures, self.assembler, self.sockets = [], Assembler(numbers), []
        self.sequence, self.challenge, self.session, self.buffer, self.closed = 0, None, None, b"", False
        host, port = re.match(r"rtsp://([^:/]+):(\d+)", url).groups()
        self.control = socket.create_connection((host, int(port)), timeout=10)
        stamped(self.control)
        head, about = self.ask("DESCRIBE", url, "Accept: application/sdp")
        base = re.search(r"(?i)content-base: *(\S+)", head)
        # All tracks: the camera's server does not let others in while one that it made is not read.
        self.media = None
        for i, part in enumerate(sorted(about.split("\nm=")[1:], key=lambda part: not part.startswith("video"))):
            track = re.search(r"a=control:(\S+)", part)[1]
            if not track.startswith("rtsp:"):
                track = (base[1] if base else url).rstrip("/") + "/" + track
            way = f"RTP/AVP/TCP;unicast;interleaved={2 * i}-{2 * i + 1}"
            if transport == "udp":
                one, two = pair()
                stamped(one)
                way = f"RTP/AVP;unicast;client_port={one.getsockname()[1]}-{two.getsockname()[1]}"
                self.media = self.media or one
                self.sockets += [one, two]
            head, _ = self.ask("SETUP", track, f"Transport: {way}")
            self.session = re.search(r"(?i)session: *([^;\r]+)", head)[1]
        self.ask("PLAY", url, "Range: npt=0.000-")
        self.start()

    def ask(self, method, url, more=""):
        """A request and its answer: (head, body)."""
        for _ in range(2):
            self.send(method, url, more)
            # Media may come before the answer to PLAY.
            while self.buffer[:1] in (b"", b"$") or b"\r\n\r\n" not in self.buffer:
                self.buffer += self.control.recv(65536)
                self.interleaved(time.monotonic(), answers=False)
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            head = head.decode()
            size = re.search(r"(?i)content-length: *(\d+)", head)
            size = int(size[1]) if size else 0
            while len(self.buffer) < size:
                self.buffer += self.control.recv(65536)
            body, self.buffer = self.buffer[:size].decode(), self.buffer[size:]
            if " 401 " not in head:
                break
            self.challenge = re.search(r'Digest.*?realm="(.*?)".*?nonce="(.*?)"', head).groups()
        assert " 200 " in head.split("\r\n")[0], f"{method} {url}: {head}"
        return head, body

    def send(self, method, url, more=""):
        """A request, with digest authentication when it was asked for (RFC 2617)."""
        self.sequence += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self.sequence}"]
        if self.challenge:
            realm, nonce = self.challenge
            digest = lambda text: hashlib.md5(text.encode()).hexdigest()
            proof = digest(f"{digest(f'admin:{realm}:test')}:{nonce}:{digest(f'{method}:{url}')}")
            lines.append(f'Authorization: Digest username="admin", realm="{realm}", nonce="{nonce}", uri="{url}", response="{proof}"')
        if self.session:
            lines.append(f"Session: {self.session}")
        self.control.sendall("\r\n".join(lines + ([more] if more else []) + ["", ""]).encode())

    def run(self):
        alive = time.monotonic()
        source = self.media if self.transport == "udp" else self.control
        source.settimeout(1)
        while not self.closed:
            if time.monotonic() - alive > 20:
                alive = time.monotonic()
                self.send("OPTIONS", self.url)
            try:
                data, control, _, _ = source.recvmsg(65536, 64)
            except TimeoutError:
                continue
            when = arrival(control)
            if self.transport == "udp":
                self.take(data, when)
            elif not data:
                return
            else:
                self.buffer += data
                self.interleaved(when)

    def interleaved(self, when, answers=True):
        """What is whole of media and answers on the one connection (RFC 2326 section 10.12)."""
        while len(self.buffer) > 4:
            if self.buffer[0] != 0x24:
                if not answers:
                    return
                end = self.buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                self.buffer = self.buffer[end + 4:]
                continue
            size = int.from_bytes(self.buffer[2:4], "big")
            if len(self.buffer) < 4 + size:
                return
            if self.buffer[1] == 0:
                self.take(self.buffer[4:4 + size], when)
            self.buffer = self.buffer[4 + size:]

    def take(self, packet, when):
        """A packet of video."""
        picture = self.assembler.packet(packet, when)
        if picture and picture[0] is not None:
            self.pictures.append(picture)

    def close(self):
        """Ends it."""
        self.closed = True
        self.join(3)
        for one in [self.control, *self.sockets]:
            one.close()


def pair():
    """Two sockets of neighbouring ports, the first even."""
    while True:
        one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        try:
            if port % 2 == 0:
                two.bind(("127.0.0.1", port + 1))
                return one, two
        except OSError:
            pass
        one.close()
        two.close()
