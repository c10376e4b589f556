"""A function that is seen while it runs: it connects to the address in WITNESS, says its call, stays so long.

It says, too, the key of its request, or the firing time of its schedule.
"""

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
            headers[name.lower()] = value
        body = STDIN.read(int(headers.get("content-length", "0")))
        with socket.create_connection((HOST, int(PORT))) as witness:
            work = headers.get("idempotency-key") or headers.get("fn-schedule-time") or ""
            witness.sendall(f"{headers['fn_call_id']} {work}\n".encode())
            witness.recv(1)  # seen
            time.sleep(float(body or b"0"))
        STDOUT.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        STDOUT.flush()


serve()
