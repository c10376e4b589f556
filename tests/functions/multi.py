"""A function of every format whose body says how to behave; the tests call it in every driver.

Orders: a JSON object, all keys optional, as the body; or percent-encoded as query parameter ``do`` (``?do=%7B...``),
which wins, so that the body can be anything. Without orders the answer is the body.

    before the answer, in this order
    say        write this line to stderr             stderr     bytes of noise to stderr
    sleep_ms   wait                                  allocate   MiB of memory to touch and keep
    run        execute this Python text; it sees ``orders``, which it may change, ``raw``, and all of this file
    unread     take no input but the head: ``do`` only, http and default; of no use for a further call

    instead of the answer, one of
    exit       exit with this code                   kill       SIGKILL to itself
    raw        write this text                       close      close stdout, then hang

    the answer
    echo       text that is the body                 size       that many bytes of "x" as body
    tell       what was received as the body: body, headers, env, id, born (this process's own mark), pid
    status     its status                            headers    {name: value or [values]}
    type       content_type (json)                   chunked    in chunks of 64 KiB (http)
    no_length  leave the length out (http)           interim    an HTTP 100 first
    wire_status  that of the answer on the socket, which is not the client's (http-stream)
    partial    half of it, then hang                 die        half of it, then exit 1
    pause_ms   half of it, a wait, the rest

    after the answer
    surplus    write this text in the same write     after      exit with this code, after ``after_ms``
    close_after  close the connection (http-stream)
    again      write this text to stdout after ``again_ms`` (default 0), before anything more is read
    later      write this text to stdout once ``later_ms`` (default 200) have passed, while the next call is awaited
    later_err  the same, to stderr

Environment: CRASH_AT_START exits with that code before anything is read; SLEEP_AT_START waits so many seconds before;
BANNER is written to stdout first of all;
EARLY answers the first line of json input and takes no more.
"""

import json
import os
import signal
import sys
import time

STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer
FORMAT = os.environ.get("FN_FORMAT", "default")
BORN = os.urandom(8).hex()
hog = []


def write(data):
    STDOUT.write(data)
    STDOUT.flush()


def orders_in(raw, url=""):
    """The orders in the URL, else those in the body."""
    _, found, do = url.partition("?do=")
    if found:
        from urllib.parse import unquote_plus  # slow to import, rarely needed

        raw = unquote_plus(do.partition("&")[0])
    try:
        orders = json.loads(raw) if raw else {}
    except ValueError:
        orders = {}
    return orders if isinstance(orders, dict) else {}


def behave(raw, orders, seen):
    """Do what comes before the answer; its status, headers and body, or nothing if there is none."""
    if "say" in orders:
        sys.stderr.write(orders["say"] + "\n")
    for _ in range(orders.get("stderr", 0) // 64):
        sys.stderr.write("n" * 63 + "\n")
    sys.stderr.flush()
    time.sleep(orders.get("sleep_ms", 0) / 1000)
    if "allocate" in orders:
        hog.append(bytearray(os.urandom(1024) * 1024 * orders["allocate"]))
    if "run" in orders:
        exec(orders["run"], globals(), {"orders": orders, "raw": raw})
    if "exit" in orders:
        os._exit(orders["exit"])
    if "kill" in orders:
        os.kill(os.getpid(), signal.SIGKILL)
    if "close" in orders:
        close_output()
        time.sleep(3600)
    if "raw" in orders:
        write(orders["raw"].encode())
        return None
    return orders.get("status", 200), headers_in(orders), answer_body(raw, orders, seen)


def close_output():
    if FORMAT == "http-stream":
        connection.shutdown(2)
    else:
        os.close(1)


def answer_body(raw, orders, seen):
    if "size" in orders:
        return b"x" * orders["size"]
    if orders.get("tell"):
        env = dict(os.environ)
        told = dict(seen, body=raw.decode("utf-8", "replace"), env=env, born=BORN, pid=os.getpid())
        return json.dumps(told).encode()
    return orders["echo"].encode() if "echo" in orders else raw


def headers_in(orders):
    """Header names and their lists of values."""
    headers = orders.get("headers", {})
    return {name: value if isinstance(value, list) else [value] for name, value in headers.items()}


def finish(answer, orders):
    """Write the answer as ordered, and what comes after it."""
    half = max(1, len(answer) - 5)
    if "partial" in orders or "die" in orders:
        write(answer[:half])
        if "die" in orders:
            os._exit(1)
        time.sleep(3600)
    if "pause_ms" in orders:
        write(answer[:half])
        time.sleep(orders["pause_ms"] / 1000)
        answer = answer[half:]
    write(answer + orders.get("surplus", "").encode())
    if "after" in orders:
        time.sleep(orders.get("after_ms", 0) / 1000)
        os._exit(orders["after"])
    if "close_after" in orders:
        connection.shutdown(2)
    if "again" in orders:
        time.sleep(orders.get("again_ms", 0) / 1000)
        write(orders["again"].encode())
    for key, stream in (("later", 1), ("later_err", 2)):
        if key in orders:
            write_later(stream, orders[key], orders.get("later_ms", 200) / 1000)


def write_later(stream, text, delay_s):
    from threading import Timer  # slow to import, rarely needed

    target = STDOUT.fileno() if stream == 1 else stream
    Timer(delay_s, write_if_open, (target, text.encode())).start()


def write_if_open(target, data):
    try:
        os.write(target, data)
    except OSError:
        pass  # the connection was closed


def serve_default():
    url = os.environ.get("FN_REQUEST_URL", "")
    orders = orders_in(b"", url)
    raw = b"" if orders.get("unread") else STDIN.read()
    orders = orders or orders_in(raw)
    done = behave(raw, orders, {"id": os.environ.get("FN_CALL_ID", "")})
    if done:
        finish(done[2], orders)


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
        orders = orders_in(b"", target)
        raw = b"" if orders.get("unread") else http_body(headers)
        orders = orders or orders_in(raw)
        done = behave(raw, orders, {"headers": headers, "target": target, "id": headers["Fn_call_id"][0]})
        if done:
            finish(http_answer(done, orders), orders)


def http_body(headers):
    if "chunked" not in headers.get("Transfer-Encoding", []):
        return STDIN.read(int(headers.get("Content-Length", ["0"])[0]))
    raw = b""
    while size := int(STDIN.readline(), 16):
        raw += STDIN.read(size)
        STDIN.readline()
    STDIN.readline()
    return raw


def http_answer(done, orders):
    status, headers, body = done
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name}: {value}" for name, values in headers.items() for value in values]
    if orders.get("chunked"):
        lines.append("Transfer-Encoding: chunked")
        pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
        body = b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]) + b"0\r\n\r\n"
    elif not orders.get("no_length"):
        lines.append(f"Content-Length: {len(body)}")
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return b"HTTP/1.1 100 Continue\r\n\r\n" + answer if orders.get("interim") else answer


def serve_stream():
    """The same requests over connections to a socket, one after another, as Fn's kits take them."""
    global STDIN, STDOUT, connection
    import socket  # slow to import, rarely needed

    path = os.environ["FN_LISTENER"].removeprefix("unix:")
    twin = os.path.join(os.path.dirname(path), "phonylsnr.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(twin)
    os.chmod(twin, 0o666)
    listener.listen()
    os.symlink(os.path.basename(twin), path)
    while True:
        connection, _ = listener.accept()
        with connection:
            STDIN, STDOUT = connection.makefile("rb"), connection.makefile("wb")
            try:
                while take_request():
                    pass
                STDOUT.close()
            except OSError:
                pass  # closed by the other side


def take_request():
    line = STDIN.readline(80)
    if not line.startswith(b"POST "):
        return False
    headers = {}
    while (line := STDIN.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(": ")
        headers.setdefault(name, []).append(value)
    orders = orders_in(b"", headers.get("Fn-Http-Request-Url", [""])[0])
    raw = b"" if orders.get("unread") else http_body(headers)
    orders = orders or orders_in(raw)
    clients = {name.removeprefix("Fn-Http-H-"): values for name, values in headers.items()}
    done = behave(raw, orders, {"headers": clients, "raw_headers": headers, "id": headers["Fn-Call-Id"][0]})
    if done:
        status, given, body = done
        given = {f"Fn-Http-H-{name}": values for name, values in given.items()}
        kit = {"Fn-Fdk-Version": ["multi/1"], "Fn-Http-Status": [str(status)]}
        finish(http_answer((orders.get("wire_status", 200), {**kit, **given}, body), orders), orders)
    return True


def serve_json():
    if "EARLY" in os.environ:
        STDIN.readline()
        write(b'{"body":"early"}\n')
        time.sleep(3600)
    lines = []
    for line in STDIN:
        if line.strip():
            lines.append(line)
            continue
        if not lines:
            continue
        call = json.loads(b"".join(lines))
        lines.clear()
        raw = call["body"].encode()
        orders = orders_in(raw, call["protocol"]["request_url"])
        seen = {"headers": call["protocol"]["headers"], "id": call["call_id"], "call": call}
        done = behave(raw, orders, seen)
        if done:
            finish(json_answer(done, orders), orders)


def json_answer(done, orders):
    status, headers, body = done
    answer = {"body": body.decode(), "protocol": {"status_code": status}}
    if headers:
        answer["protocol"]["headers"] = headers
    if "type" in orders:
        answer["content_type"] = orders["type"]
    return json.dumps(answer).encode() + b"\n"


if "BANNER" in os.environ:
    write(os.environ["BANNER"].encode())
if os.environ.get("SLEEP_AT_START"):
    time.sleep(float(os.environ["SLEEP_AT_START"]))
if "CRASH_AT_START" in os.environ:
    sys.stderr.write("crashing at start\n")
    sys.exit(int(os.environ["CRASH_AT_START"] or 1))
SERVERS = {"default": serve_default, "http": serve_http, "json": serve_json, "http-stream": serve_stream}
SERVERS[FORMAT]()
