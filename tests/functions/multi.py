"""A function of every format whose body says how to behave; the tests call it in every driver.

Body: a JSON object, all keys optional.

    echo      text that is the answer's body (default: the whole body back)
    status    the answer's status            headers   {name: value} of the answer
    sleep_ms  wait before answering          stderr    bytes of noise on stderr first
    exit      exit with this code instead    after     exit with this code after the answer
    raw       write this text instead of an answer
    surplus   write this text after the answer, in the same write
    partial   write half of the answer, then hang      die    write half of the answer, then exit 1
    size      that many bytes of "x" as body           no_length  leave the length out (http)
    interim   an HTTP 100 first              allocate  MiB of memory to touch
    tell      answer with what was received: body, headers, env, id, born (this process's own mark)
"""

import json
import os
import sys
import time

STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer
FORMAT = os.environ.get("FN_FORMAT", "default")
BORN = os.urandom(8).hex()
hog = []


def write(data):
    STDOUT.write(data)
    STDOUT.flush()


def behave(raw, seen):
    """Do what the body says before the answer; the answer's status, headers, body, and the orders."""
    try:
        orders = json.loads(raw) if raw else {}
    except ValueError:
        orders = {}
    if not isinstance(orders, dict):
        orders = {}
    for _ in range(orders.get("stderr", 0) // 64):
        sys.stderr.write("n" * 63 + "\n")
    sys.stderr.flush()
    time.sleep(orders.get("sleep_ms", 0) / 1000)
    if "allocate" in orders:
        hog.append(bytearray(os.urandom(1024) * 1024 * orders["allocate"]))
    if "exit" in orders:
        os._exit(orders["exit"])
    if "raw" in orders:
        write(orders["raw"].encode())
        return None
    if "size" in orders:
        body = b"x" * orders["size"]
    elif orders.get("tell"):
        told = dict(seen, body=raw.decode("utf-8", "replace"), env=dict(os.environ), born=BORN)
        body = json.dumps(told).encode()
    else:
        body = orders["echo"].encode() if "echo" in orders else raw
    return orders.get("status", 200), orders.get("headers", {}), body, orders


def finish(answer, orders):
    if "partial" in orders or "die" in orders:
        write(answer[: max(1, len(answer) - 5)])
        if "die" in orders:
            os._exit(1)
        time.sleep(3600)
    write(answer + orders.get("surplus", "").encode())
    if "after" in orders:
        os._exit(orders["after"])


def serve_default():
    done = behave(STDIN.read(), {})
    if done:
        finish(done[2], done[3])


def serve_http():
    while True:
        line = STDIN.readline()
        if not line:
            return
        target = line.split()[1].decode()
        headers = {}
        while (line := STDIN.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(": ")
            headers.setdefault(name, []).append(value)
        if "chunked" in headers.get("Transfer-Encoding", []):
            raw = b""
            while size := int(STDIN.readline(), 16):
                raw += STDIN.read(size)
                STDIN.readline()
            STDIN.readline()
        else:
            raw = STDIN.read(int(headers.get("Content-Length", ["0"])[0]))
        done = behave(raw, {"headers": headers, "target": target, "id": headers["Fn_call_id"][0]})
        if not done:
            continue
        status, extra, body, orders = done
        lines = [f"HTTP/1.1 {status} Whatever"] + [f"{name}: {value}" for name, value in extra.items()]
        if not orders.get("no_length"):
            lines.append(f"Content-Length: {len(body)}")
        answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        if orders.get("interim"):
            answer = b"HTTP/1.1 100 Continue\r\n\r\n" + answer
        finish(answer, orders)


def serve_json():
    lines = []
    for line in STDIN:
        if line.strip():
            lines.append(line)
            continue
        if not lines:
            continue
        call = json.loads(b"".join(lines))
        lines.clear()
        seen = {"headers": call["protocol"]["headers"], "id": call["call_id"], "call": call}
        done = behave(call["body"].encode(), seen)
        if not done:
            continue
        status, extra, body, orders = done
        answer = {"body": body.decode(), "protocol": {"status_code": status}}
        if extra:
            answer["protocol"]["headers"] = {name: [value] for name, value in extra.items()}
        finish(json.dumps(answer).encode() + b"\n", orders)


{"default": serve_default, "http": serve_http, "json": serve_json}[FORMAT]()
