"""A function that is seen while it runs: it connects to the address in WITNESS, says its call, stays so long."""

import os
import socket
import sys
import time

STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer
HOST, _, PORT = os.environ["WITNESS"].partition(":")


def serve():
    while STDIN.readline():
        headers = {}
        while (line := STDIN.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name] = value
        body = STDIN.read(int(headers.get("Content-Length", "0")))
        with socket.create_connection((HOST, int(PORT))) as witness:
            witness.sendall(headers["Fn_call_id"].encode() + b"\n")
            witness.recv(1)  # seen
            time.sleep(float(body or b"0"))
        STDOUT.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        STDOUT.flush()


serve()
