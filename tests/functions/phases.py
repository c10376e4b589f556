"""A function that tells the address in WITNESS when a call is in the phase named by HOLD, and goes on when it may."""

import os
import socket
import sys

STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer
HOST, _, PORT = os.environ["WITNESS"].partition(":")


def reach(phase):
    if phase == os.environ["HOLD"]:
        with socket.create_connection((HOST, int(PORT))) as witness:
            witness.sendall(phase.encode() + b"\n")
            witness.recv(1)


def write(data):
    STDOUT.write(data)
    STDOUT.flush()


reach("starting")
while STDIN.readline():
    length = 0
    while (line := STDIN.readline().strip()) != b"":
        name, _, value = line.partition(b": ")
        if name == b"Content-Length":
            length = int(value)
    body = STDIN.read(length)
    reach("running")
    write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (2 * length, body))
    reach("answering")
    write(body)
    reach("recording")
