"""A function that runs several calls at once, each connection in a thread; its body says how to behave.

Orders: a JSON object as the body, all keys optional.

    sleep_ms    wait
    meet        wait until so many calls were here at once
    hold        wait until the connection ends (the call was given up), then end it, too
    ignore_ms   go on for so long, whatever happens to the connection; then end it
    say         write this line to stderr, marked with the call's id
    shout       write this line to stderr as it is
    exit        exit with this code                kill       SIGKILL to itself
    fork        leave a child behind, which holds the connection
    hang_up     close the connection
    status      the status on the wire             half       half of the answer, then close
    twice       a second answer in the same write
    late_ms     a second answer after that time, while the connection is kept
    echo        text that is the body, with a mark of the process, and the most calls that ran at once
"""

import json
import os
import signal
import socket
import sys
import threading
import time

PATH = os.environ["FN_LISTENER"].removeprefix("unix:")
BORN = os.urandom(8).hex()
MARK = os.environ.get("FN_LOGFRAME_NAME", "")
here = threading.Condition()
inside = most = 0


def listen():
    twin = os.path.join(os.path.dirname(PATH), "phonylsnr.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(twin)
    os.chmod(twin, 0o666)
    listener.listen(64)
    os.symlink("phonylsnr.sock", PATH)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection):
    with connection, connection.makefile("rb") as requests:
        try:
            while requests.readline():
                length, call_id = 0, ""
                while (line := requests.readline().strip()) != b"":
                    name, _, value = line.decode("latin-1").partition(": ")
                    length = int(value) if name == "Content-Length" else length
                    call_id = value if name == "Fn-Call-Id" else call_id
                if not answer(connection, call_id, json.loads(requests.read(length))):
                    return
        except ConnectionError:
            return


def answer(connection, call_id, orders):
    global inside, most
    with here:
        inside += 1
        most = max(most, inside)
        here.notify_all()
        here.wait_for(lambda: most >= orders.get("meet", 0))
    return behave(connection, call_id, orders)


def leave():
    """Count a call as ended, before anybody can know that it has."""
    global inside
    with here:
        inside -= 1


def behave(connection, call_id, orders):
    time.sleep(orders.get("sleep_ms", 0) / 1000)
    if "say" in orders:
        os.write(2, f"{MARK}={call_id} {orders['say']}\n".encode())
    if "shout" in orders:
        os.write(2, f"{orders['shout']}\n".encode())
    if "hold" in orders:
        connection.recv(1)
        leave()
        return False
    if "ignore_ms" in orders:
        time.sleep(orders["ignore_ms"] / 1000)
        leave()
        return False
    if "exit" in orders:
        os._exit(orders["exit"])
    if "kill" in orders:
        os.kill(os.getpid(), signal.SIGKILL)
    if "fork" in orders and os.fork() == 0:
        time.sleep(3600)
        os._exit(0)
    leave()
    if "hang_up" in orders:
        return False
    body = json.dumps({"echo": orders.get("echo", ""), "born": BORN, "most": most}).encode()
    status = orders.get("status", 200)
    text = b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    if "half" in orders:
        connection.sendall(text[:-5])
        return False
    connection.sendall(text * (2 if "twice" in orders else 1))
    if "late_ms" in orders:
        threading.Timer(orders["late_ms"] / 1000, again, (connection, text)).start()
    return True


def again(connection, text):
    try:
        connection.sendall(text)
    except OSError:
        pass  # it was closed


sys.stderr.flush()
listen()
