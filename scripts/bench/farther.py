#!/usr/bin/env python3
"""A line that takes its time: carries packets between two TUN devices, each so many milliseconds later.

    farther.py MILLISECONDS NAMESPACE DEVICE NAMESPACE DEVICE

For kernels without netem. The devices are made here, one in each network namespace. It says `ready` when they are there.
"""
import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, TUN_WITHOUT_HEADER, CLONE_NEWNET = 0x400454CA, 0x1001, 0x40000000


def device(namespace, name):
    """A TUN device in there. What is opened stays of that namespace."""
    with open(f"/run/netns/{namespace}") as entry:
        if ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), CLONE_NEWNET):
            sys.exit(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    return tun


def main():
    delay = float(sys.argv[1]) / 1000
    ends = [device(*sys.argv[2:4]), device(*sys.argv[4:6])]
    to = {ends[0]: ends[1], ends[1]: ends[0]}
    print("ready", flush=True)
    # All take equally long, so they leave in the order in which they came.
    under_way = collections.deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else -1
        ready = select.select(ends, (), (), None if wait < 0 else wait)[0]
        now = time.monotonic()
        for end in ready:
            try:
                while True:
                    under_way.append((now + delay, to[end], os.read(end, 65535)))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, end, packet = under_way.popleft()
            try:
                os.write(end, packet)
            except OSError:
                pass


main()
