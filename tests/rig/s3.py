#!/usr/bin/env python3
"""A store that speaks as much of S3 as a gateway needs, keeps its objects in a directory, and misbehaves when told to.

    s3.py PORT DIR

DIR/objects has the objects, DIR/log a line for each PUT that was begun, refused and done: "begin 2 NAME" with how many
were under way then, "no STATUS NAME", "done SHA256 NAME". DIR/mode, read at each PUT, says how it behaves:

    ok                   takes it
    slow SECONDS         takes it after so long
    full STATUS CODE     refuses it so
    hang PART            never answers a PUT whose name has PART in it
"""
import hashlib
import http.server
import os
import sys
import tempfile
import threading
import time

port, root = int(sys.argv[1]), sys.argv[2]
objects, lock, under_way = os.path.join(root, "objects"), threading.Lock(), 0


def note(line):
    with lock, open(os.path.join(root, "log"), "a") as log:
        log.write(line + "\n")


def mode():
    try:
        with open(os.path.join(root, "mode")) as file:
            return file.read().split() or ["ok"]
    except FileNotFoundError:
        return ["ok"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, code="", body=b"", size=None):
        if code and self.command != "HEAD":
            body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.send_header("Last-Modified", self.date_time_string())
        self.send_header("ETag", '"etag"')
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        global under_way
        name = self.path.lstrip("/")
        with lock:
            under_way += 1
            now = under_way
        try:
            note(f"begin {now} {name}")
            self.take(name)
        finally:
            with lock:
                under_way -= 1

    def take(self, name):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        what = mode()
        if what[0] == "full":
            note(f"no {what[1]} {name}")
            return self.answer(int(what[1]), what[2])
        if what[0] == "hang" and what[1] in name:
            time.sleep(3600)
        if what[0] == "slow":
            time.sleep(float(what[1]))
        sha = hashlib.sha256(body).hexdigest()
        if sha != self.headers.get("x-amz-content-sha256"):
            return self.answer(400, "XAmzContentSHA256Mismatch")
        path = os.path.join(objects, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, delete=False) as part:
            part.write(body)
        os.rename(part.name, path)
        note(f"done {sha} {name}")
        self.answer(200)

    def do_HEAD(self):
        path = os.path.join(objects, self.path.lstrip("/"))
        if os.path.isfile(path):
            self.answer(200, size=os.path.getsize(path))
        else:
            self.answer(404)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


os.makedirs(objects, exist_ok=True)
Server(("127.0.0.1", port), Handler).serve_forever()
