"""A function of the format http-stream that starts in a bad way; ``START`` in its environment says which.

Once it listens, it answers each request with its body.
"""

import os
import socket
import sys
import time

PATH = os.environ["FN_LISTENER"].removeprefix("unix:")
FOLDER = os.path.dirname(PATH)
TWIN = os.path.join(FOLDER, "phonylsnr.sock")


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen()
    return listener


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as requests:
            while requests.readline():
                length = 0
                while (line := requests.readline().strip()) != b"":
                    name, _, value = line.partition(b": ")
                    if name == b"Content-Length":
                        length = int(value)
                body = requests.read(length)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def never():
    time.sleep(3600)


def exits():
    sys.stderr.write("no such module\n")
    sys.exit(3)


def links_out():
    os.symlink(os.environ["TARGET"], PATH)
    time.sleep(3600)


def is_a_file():
    open(PATH, "w").close()
    time.sleep(3600)


def kit():
    listener = listen(TWIN)
    os.symlink("phonylsnr.sock", PATH)
    serve(listener)


def direct():
    serve(listen(PATH))


def renames():
    listener = listen(TWIN)
    os.rename(TWIN, PATH)
    serve(listener)


def talks_first():
    for stream in (1, 2):
        os.write(stream, b"x" * 2_000_000)
    kit()


def forks():
    if os.fork() == 0:
        kit()
    os.wait()


def ends_at_a_connection():
    listener = listen(TWIN)
    os.symlink("phonylsnr.sock", PATH)
    listener.accept()
    os._exit(3)


def listens_late():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(TWIN)
    os.chmod(TWIN, 0o666)
    os.symlink("phonylsnr.sock", PATH)
    time.sleep(0.3)
    listener.listen()
    serve(listener)


globals()[os.environ["START"]]()
