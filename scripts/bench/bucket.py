#!/usr/bin/env python3
"""An S3 service that keeps only what is small: scripts/bench/drain's headquarters.

It speaks TLS and answers PUT, GET and HEAD as S3 does, with the MD5 of what it received as ETag, so that whoever checks
is satisfied; bytes of more than 64 KiB an object it forgets once they are counted, and `.json` and `.m3u8` it keeps. It checks no
signatures. `GET /` without a bucket says as JSON what came so far.
"""
import hashlib
import http.server
import json
import socketserver
import ssl
import sys
import threading
import time

KEPT = 64 * 1024
TOTAL = {"objects": 0, "bytes": 0}
HELD, LOCK = {}, threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def name(self):
        return self.path.split("?")[0]

    def answer(self, status, body=b"", **headers):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def do_PUT(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        left, md5, kept = int(self.headers["Content-Length"]), hashlib.md5(), []
        size, room = left, memoryview(bytearray(1 << 18))
        while left:
            got = self.rfile.readinto1(room[:min(left, len(room))])
            if not got:
                self.close_connection = True
                return
            md5.update(room[:got])
            if size <= KEPT or self.name().endswith((".json", ".m3u8")):
                kept.append(bytes(room[:got]))
            left -= got
        with LOCK:
            HELD[self.name()] = (size, md5.hexdigest(), b"".join(kept), time.time())
            TOTAL["objects"] += 1
            TOTAL["bytes"] += size
        self.answer(200, ETag=f'"{md5.hexdigest()}"')

    def do_GET(self):
        if self.name() == "/":
            with LOCK:
                return self.answer(200, json.dumps(TOTAL).encode())
        with LOCK:
            held = HELD.get(self.name())
        if not held:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if self.command == "GET" else b"")
        size, md5, kept, at = held
        when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
        self.answer(200, kept, ETag=f'"{md5}"', Last_Modified=when, Content_Length=str(size))

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    """A thread a connection, each with its own handshake."""
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def finish_request(self, request, client_address):
        with CONTEXT.wrap_socket(request, server_side=True) as line:
            Handler(line, client_address, self)

    def handle_error(self, *_):
        pass


if __name__ == "__main__":
    port, certificate, key = sys.argv[1:]
    CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CONTEXT.load_cert_chain(certificate, key)
    Server(("0.0.0.0", int(port)), Handler).serve_forever()
