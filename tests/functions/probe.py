"""A program for the tests of drivers: what it does is chosen by the variable PROBE."""

import json
import os
import sys
import threading
import time


def echo():
    while chunk := sys.stdin.buffer.read1(65536):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def pour(fd):
    for _ in range(160):
        left = memoryview(b"x" * 65536)
        while left:
            left = left[os.write(fd, left) :]


def flood():
    other = threading.Thread(target=pour, args=(2,))
    other.start()
    pour(1)
    other.join()


def allocate():
    hog = bytearray(os.urandom(1024) * 1024 * 300)
    time.sleep(len(hog))


PROBES = {
    "echo": echo,
    "sleep": lambda: time.sleep(3600),
    "flood": flood,
    "early": lambda: print("early", flush=True),
    "exit-0": lambda: os._exit(0),
    "exit-3": lambda: os._exit(3),
    "allocate": allocate,
    "env": lambda: print(json.dumps(dict(os.environ)), flush=True),
}
PROBES[os.environ["PROBE"]]()
