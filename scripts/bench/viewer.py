"""Light viewers by WebRTC: ICE, DTLS and SRTP as a browser has them, and nothing decoded.

They count packets and pictures, and say when each picture came by the kernel's clock. Many of them share one thread.
"""
import contextlib
import datetime
import hmac
import http.client
import json
import os
import re
import select
import socket
import struct
import threading
import time
import zlib

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from pictures import Assembler
from tap import arrival, stamped

# As Chromium offers them: the name, that of libsrtp, the lengths of key and salt.
PROFILES = {b"SRTP_AES128_CM_SHA1_80": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
            b"SRTP_AEAD_AES_256_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
            b"SRTP_AEAD_AES_128_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12)}
COOKIE = 0x2112A442
H264 = ("42e01f", "4d001f", "64001f")


def certificate():
    """A key and a certificate signed by itself: (context, fingerprint)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "viewer")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + 30 * day)
    cert = builder.sign(key, hashes.SHA256())
    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_certificate(cert)
    context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.set_tlsext_use_srtp(b":".join(PROFILES))
    return context, cert.fingerprint(hashes.SHA256()).hex(":").upper()


# ---- one viewer

class Viewer:
    """One session from its first check until it is closed."""

    def __init__(self, identity, numbers=None):
        self.context, self.fingerprint = identity
        self.user, self.password = os.urandom(4).hex(), os.urandom(12).hex()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stamped(self.socket)
        self.socket.bind(("0.0.0.0", 0))
        self.socket.setblocking(False)
        self.assembler = Assembler(numbers) if numbers else None
        self.peer, self.active, self.controlling, self.dtls, self.inward, self.outward = None, True, True, None, None, None
        self.pictures, self.counts, self.packets, self.answers, self.checked, self.said = [], {}, 0, 0, 0.0, 0.0
        self.end = lambda: None

    def transport(self, setup):
        """The lines of a description that say how to reach us."""
        return f"a=ice-ufrag:{self.user}\r\na=ice-pwd:{self.password}\r\na=fingerprint:sha-256 {self.fingerprint}\r\na=setup:{setup}\r\n" \
               "a=rtcp-mux\r\na=recvonly\r\n"

    def follow(self, description, setup):
        """Begins to reach who wrote this description."""
        found = lambda what: re.search(rf"a={what}:(\S+)", description)[1]
        self.remote = found("ice-ufrag"), found("ice-pwd")
        hosts = re.findall(r"a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", description, re.IGNORECASE)
        self.peer, self.active = (hosts[0][0], int(hosts[0][1])), setup == "active"
        self.dtls = SSL.Connection(self.context)
        self.dtls.set_ciphertext_mtu(1200)
        (self.dtls.set_connect_state if self.active else self.dtls.set_accept_state)()
        self.check()

    def whep(self, port, camera):
        """Watches a camera of the gateway."""
        types = range(96, 96 + len(H264))
        offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n" \
                f"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:0 PCMU/8000\r\n{self.transport('actpass')}" \
                f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, types))}\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n{self.transport('actpass')}"
        for kind, profile in zip(types, H264):
            offer += f"a=rtpmap:{kind} H264/90000\r\na=rtcp-fb:{kind} nack\r\na=rtcp-fb:{kind} nack pli\r\n" \
                     f"a=fmtp:{kind} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}\r\n"
        status, head, text = http_call(port, "POST", f"/v1/cameras/{camera}/whep", offer, {"Content-Type": "application/sdp"})
        assert status == 201, text
        self.end = lambda: http_call(port, "DELETE", head["location"])
        self.follow(text, "passive" if "a=setup:active" in text else "active")

    def janus(self, local, camera):
        """Watches a camera of Janus."""
        handle = local.call({"janus": "attach", "plugin": "janus.plugin.streaming"})["data"]["id"]
        offer = local.call({"janus": "message", "handle_id": handle, "body": {"request": "watch", "id": camera}}, event=True)["jsep"]["sdp"]
        answer = ["v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", *re.findall(r"a=group:BUNDLE.*\r\n", offer)]
        for part in re.split(r"(?m)^(?=m=)", offer)[1:]:
            keep = re.findall(r"(?m)^(?:a=(?:mid|rtpmap|fmtp|rtcp-fb):.*)\r\n", part)
            answer += [part.split("\r\n")[0], "\r\nc=IN IP4 0.0.0.0\r\n", *keep, self.transport("active")]
        self.controlling = "a=ice-lite" in offer
        self.follow(offer, "active")
        local.call({"janus": "message", "handle_id": handle, "body": {"request": "start"}, "jsep": {"type": "answer", "sdp": "".join(answer)}}, event=True)
        local.call({"janus": "trickle", "handle_id": handle, "candidate": {"completed": True}})
        self.end = lambda: local.call({"janus": "detach", "handle_id": handle})

    # ---- ICE (RFC 8445, STUN: RFC 8489)

    def check(self):
        """Asks whether the other side is there; nominates it if that is ours to do."""
        name = f"{self.remote[0]}:{self.user}".encode()
        parts = [(0x0006, name), (0x0024, struct.pack(">I", 1853824767)), (0x802a if self.controlling else 0x8029, os.urandom(8))]
        if self.controlling:
            parts.append((0x0025, b""))
        self.socket.sendto(stun(0x0001, os.urandom(12), parts, self.remote[1]), self.peer)
        self.checked = time.monotonic()

    def ice(self, data, sender):
        """A check of the other side is answered; to an answer of its, DTLS begins."""
        kind, = struct.unpack(">H", data[:2])
        if kind == 0x0001:
            port = sender[1] ^ COOKIE >> 16
            address = struct.unpack(">I", socket.inet_aton(sender[0]))[0] ^ COOKIE
            mapped = (0x0020, struct.pack(">BBHI", 0, 1, port, address))
            self.socket.sendto(stun(0x0101, data[8:20], [mapped], self.password), sender)
        elif kind == 0x0101 and not self.inward and self.active:
            # A hello that comes before the other side has nominated is dropped, and the next one would be a second later.
            self.answers += 1
            if self.answers > 1:
                self.shake()

    # ---- DTLS (RFC 5764)

    def shake(self, data=None):
        """The handshake, as far as it goes."""
        if data:
            self.dtls.bio_write(data)
        try:
            if self.inward:
                self.dtls.recv(1500)
            else:
                self.dtls.do_handshake()
                self.keys()
        except (SSL.WantReadError, SSL.ZeroReturnError):
            pass
        while True:
            try:
                self.socket.sendto(self.dtls.bio_read(1500), self.peer)
            except SSL.WantReadError:
                return

    def keys(self):
        """Both directions of SRTP out of the handshake."""
        profile, key, salt = PROFILES[self.dtls.get_selected_srtp_profile()]
        raw = self.dtls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
        at = lambda side: raw[side * key:(side + 1) * key] + raw[2 * key + side * salt:2 * key + (side + 1) * salt]
        policy = lambda side, kind: pylibsrtp.Session(pylibsrtp.Policy(key=at(side), ssrc_type=kind, srtp_profile=profile))
        self.outward = policy(0 if self.active else 1, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self.inward = policy(1 if self.active else 0, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    # ---- media

    def read(self):
        """All that came."""
        for _ in range(64):
            try:
                if self.assembler:
                    data, control, _, sender = self.socket.recvmsg(2048, 64)
                else:
                    data, sender = self.socket.recvfrom(2048)
            except BlockingIOError:
                return
            first = data[0]
            if first < 4:
                self.ice(data, sender)
            elif first < 64:
                self.shake(data)
            elif not 192 <= data[1] <= 223:
                self.packets += 1
                count = self.counts.get(source := data[8:12])
                number = data[2] << 8 | data[3]
                if not count:
                    # Packets, those with a marker, the highest number, how often it began anew, the first number.
                    count = self.counts[source] = [0, 0, number, 0, number]
                count[0] += 1
                count[1] += data[1] >> 7
                if (ahead := number - count[2] & 0xffff) < 0x8000:
                    count[3] += number < count[2] and ahead > 0
                    count[2] = number
                if self.assembler and self.inward and data[1] & 127 not in (0, 8):
                    picture = self.assembler.packet(self.inward.unprotect(data), arrival(control))
                    if picture and picture[0] is not None:
                        self.pictures.append(picture)

    def tick(self, now):
        """What is to be done from time to time: checks, a handshake again, reports of reception (RFC 3550 section 6.4.2)."""
        if self.peer and now - self.checked > (2.5 if self.inward else 0.1):
            self.check()
            if not self.inward and self.active and self.answers > 1:
                self.dtls.DTLSv1_handle_timeout()
                self.shake()
        if self.outward and now - self.said > 1:
            self.said = now
            for source, (_, _, highest, cycles, _) in list(self.counts.items()):
                report = struct.pack(">BBHI4sIIIII", 0x81, 201, 7, 1, source, 0, cycles << 16 | highest, 0, 0, 0)
                self.socket.sendto(self.outward.protect_rtcp(report), self.peer)

    def lost(self):
        """Packets that should have come and did not."""
        return sum((cycles << 16 | highest) - first + 1 - got for got, _, highest, cycles, first in self.counts.values())


def http_call(port, *request):
    """(status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(*request)
    answer = connection.getresponse()
    with contextlib.closing(connection):
        return answer.status, answer.headers, answer.read().decode()


def stun(kind, transaction, parts, password):
    """A message with integrity and fingerprint."""
    body = b"".join(struct.pack(">HH", name, len(value)) + value + bytes(-len(value) % 4) for name, value in parts)
    head = lambda size: struct.pack(">HHI", kind, size, COOKIE) + transaction
    body += struct.pack(">HH", 0x0008, 20) + hmac.digest(password.encode(), head(len(body) + 24) + body, "sha1")
    return head(len(body) + 8) + body + struct.pack(">HHI", 0x8028, 4, zlib.crc32(head(len(body) + 8) + body) ^ 0x5354554e)


# ---- many

class Crowd(threading.Thread):
    """Viewers, and the thread that reads for them."""

    def __init__(self, identity):
        super().__init__(daemon=True)
        self.identity, self.viewers, self.poll, self.closed = identity, {}, select.epoll(), False
        self.start()

    def add(self, begin, numbers=None):
        """One more, which `begin` makes watch; it has had a packet when this returns."""
        viewer = Viewer(self.identity, numbers)
        begin(viewer)
        self.viewers[viewer.socket.fileno()] = viewer
        self.poll.register(viewer.socket, select.EPOLLIN)
        until = time.monotonic() + 20
        while not viewer.packets:
            assert time.monotonic() < until, "a viewer gets nothing"
            time.sleep(0.01)
        return viewer

    def run(self):
        ticked = 0.0
        while not self.closed:
            for number, _ in self.poll.poll(0.05):
                self.viewers[number].read()
            if (now := time.monotonic()) - ticked > 0.05:
                ticked = now
                for viewer in list(self.viewers.values()):
                    viewer.tick(now)

    def close(self):
        """Ends all sessions."""
        self.closed = True
        self.join()
        for viewer in self.viewers.values():
            viewer.end()
            viewer.socket.close()


class Local:
    """A session at Janus's socket for local callers."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(15)
        self.socket.connect(str(path))
        self.session, self.count = None, 0
        self.session = self.call({"janus": "create"})["data"]["id"]

    def call(self, request, event=False):
        """A request and its answer; of an asynchronous one the event."""
        self.count += 1
        request = {**request, "transaction": str(self.count), **({"session_id": self.session} if self.session else {})}
        self.socket.send(json.dumps(request).encode())
        while True:
            said = json.loads(self.socket.recv(1 << 20))
            if said.get("transaction") != str(self.count) or (event and said["janus"] == "ack"):
                continue
            fault = said.get("error") or said.get("plugindata", {}).get("data", {}).get("error")
            assert not fault, said
            return said
