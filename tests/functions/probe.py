"""A program for the tests of drivers: what it does is chosen by the variable PROBE."""

import ctypes
import json
import os
import signal
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


def mute():
    """Close stdout, say so, live until stdin ends."""
    os.close(1)
    os.write(2, b"closed")
    while os.read(0, 65536):
        pass
    os._exit(0)


def mute_exit():
    os.close(1)
    os._exit(3)


def deaf():
    """Close stdin, say so, live on."""
    os.close(0)
    os.write(1, b"closed")
    time.sleep(3600)


def twice():
    """Answer once, and once more without being asked."""
    os.read(0, 65536)
    os.write(1, b"answer")
    os.read(0, 65536)
    os.write(1, b"late")
    time.sleep(3600)


def heir():
    """End, and leave a process behind that holds the output open."""
    if os.fork():
        os.write(1, b"gone")
        os._exit(0)
    time.sleep(3600)


def fork_bomb():
    """As many processes as it gets, at most 300; then live on."""
    made = 0
    try:
        while made < 300:
            if os.fork() == 0:
                time.sleep(3600)
            made += 1
    except OSError:
        pass
    os.write(1, f"{made}\n".encode())
    time.sleep(3600)


def descriptor_bomb():
    made = []
    try:
        while len(made) < 5000:
            made.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    os.write(1, f"{len(made)}\n".encode())
    time.sleep(3600)


def burn():
    while True:
        sum(range(10000))


def tell(value):
    print(json.dumps(value), flush=True)


def look():
    """Which of these paths can be seen, and which can be written below."""
    paths = json.loads(os.environ["PATHS"])
    tell({"seen": [path for path in paths if os.path.exists(path)], "written": [path for path in paths if write(path)]})


def write(folder):
    try:
        with open(os.path.join(folder, "hearth-probe"), "w"):
            return True
    except OSError:
        return False


def remount():
    """Try to make the system writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"none", b"/usr", None, 0x1020, None)  # MS_REMOUNT | MS_BIND
    tell({"remounted": done == 0, "written": write("/usr")})


def inside():
    """What there is to see of other processes, and of what was inherited."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    environments = []
    for pid in pids:
        with open(f"/proc/{pid}/environ", errors="replace") as file:
            environments.append(file.read())
    tell(
        {
            "pids": len(pids),
            "environments": environments,
            "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
            "tmp": os.listdir("/tmp"),
            "user": os.listdir("/home"),
        }
    )


def use_package():
    import hearth_sample

    os.write(1, hearth_sample.WORD.encode())


PROBES = {
    "echo": echo,
    "sleep": lambda: time.sleep(3600),
    "flood": flood,
    "early": lambda: os.write(1, b"early\n"),
    "exit-0": lambda: os._exit(0),
    "exit-3": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "suicide": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "allocate": allocate,
    "mute": mute,
    "mute-exit-3": mute_exit,
    "deaf": deaf,
    "twice": twice,
    "heir": heir,
    "fork-bomb": fork_bomb,
    "descriptor-bomb": descriptor_bomb,
    "burn": burn,
    "look": look,
    "remount": remount,
    "inside": inside,
    "use-package": use_package,
    "env": lambda: tell(dict(os.environ)),
}
PROBES[os.environ["PROBE"]]()
