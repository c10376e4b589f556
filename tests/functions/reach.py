"""A function that tells what it reaches on the network: used to test the networks of functions.

Works without a web framework and without Hearth: it runs in Docker, and as a process.
"""

import errno
import json
import os
import socket
import struct
import sys
import time

LIMIT_S = 2.0


def connect(address):
    """Tell how a TCP connection ends, with the answer to a request where one comes."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), LIMIT_S) as connection:
            connection.settimeout(LIMIT_S)
            connection.sendall(b"GET /v1/apps HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            return connection.recv(65536).decode("latin-1").partition("\r\n")[0] or "connected"
    except OSError as exc:
        return type(exc).__name__


def abstract(name):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT_S)
            connection.connect("\0" + name)
            return "connected"
    except OSError as exc:
        return type(exc).__name__


def resolve(name):
    try:
        return socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    except OSError as exc:
        return type(exc).__name__


def gateway():
    """The address of the default route."""
    with open("/proc/net/route") as routes:
        for line in routes.read().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return socket.inet_ntoa(int(fields[2], 16).to_bytes(4, "little"))
    return ""


def addresses():
    """Our own addresses, but loopback's."""
    found, last = set(), ""
    with open("/proc/net/fib_trie") as tries:
        for line in tries.read().splitlines():
            if "/32 host LOCAL" in line and not last.startswith("127."):
                found.add(last)
            last = line.split()[-1]
    return sorted(found)


def unroute(network):
    """Take the route away that refuses a network: a message to the kernel, as rtnetlink(7) has it."""
    address, _, prefix = network.partition("/")
    body = struct.pack("BBBBBBBBI", socket.AF_INET, int(prefix), 0, 0, 254, 0, 0, 0, 0)
    body += struct.pack("HH4s", 8, 1, socket.inet_aton(address))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(struct.pack("IHHII", 16 + len(body), 25, 5, 1, 0) + body)
        (code,) = struct.unpack_from("i", kernel.recv(4096), 16)
    return errno.errorcode.get(-code, "done")


def children(count):
    """Start processes that live on; how many could be started."""
    for number in range(count):
        try:
            if os.fork() == 0:
                time.sleep(3600)
        except OSError:
            return number
    return count


def orphans(count):
    """Leave processes behind that nobody of us waits for; how many could be started."""
    for number in range(count):
        for _ in range(5000):  # those before may not have been reaped yet
            if leave_one():
                break
            time.sleep(0.001)
        else:
            return number
    return count


def leave_one():
    try:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.fork()
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(child, 0)[1] == 0
    except OSError:
        return False


def main():
    act = json.loads(os.environ["REACH"])
    way_out = gateway()
    told = {
        "gateway": way_out,
        "addresses": addresses(),
        "connect": {place: connect(place.replace("GATEWAY", way_out)) for place in act.get("connect", ())},
        "abstract": {name: abstract(name) for name in act.get("abstract", ())},
        "routes": {network: unroute(network) for network in act.get("routes", ())},
        "resolve": {name: resolve(name) for name in act.get("resolve", ())},
    }
    if "children" in act:
        told["children"] = children(act["children"])
    if "orphans" in act:
        told["orphans"] = orphans(act["orphans"])
    if "listen" in act:
        listener = socket.create_server(("", act["listen"]))
    print(json.dumps(told), flush=True)
    if "children" in act:
        os._exit(0)
    if "listen" in act:
        while True:
            listener.accept()[0].close()


if len(sys.argv) == 1:
    main()
