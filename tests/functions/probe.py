"""A program for the tests of drivers: what it does is chosen by the variable PROBE."""

import ctypes
import json
import os
import platform
import signal
import socket
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


def attempt(do):
    """What came of it: whether it was done, or the refusal's name."""
    try:
        return do() is not False
    except OSError as exc:
        return type(exc).__name__


def system(name, *arguments):
    """A system call by its name in libc; refused where it answers -1."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def call_keyring(name, *arguments):
    """Of the kernel's keyrings; libc has no function for them."""
    numbers = {"x86_64": {"add_key": 248, "keyctl": 250}, "aarch64": {"add_key": 217, "keyctl": 219}}
    system("syscall", numbers[platform.machine()][name], *arguments)


def make_device():
    os.mknod("/tmp/disk", 0o060666, os.makedev(8, 0))


def settings_of_the_kernel():
    """All files of /proc but those of processes, and those by which anybody may be told of stalls."""
    entries = [name for name in os.listdir("/proc") if not name.isdigit()]
    for name in set(entries) - {"self", "thread-self", "pressure", "mtrr"}:  # mtrr asks for rights when it is written
        yield f"/proc/{name}"
        for folder, _, files in os.walk(f"/proc/{name}"):
            yield from (os.path.join(folder, file) for file in files)


def writable(path):
    return os.path.isfile(path) and os.access(path, os.W_OK)


def break_out():
    """Try each way out that it knows; what worked."""
    victim, name = int(os.environ["VICTIM"]), os.environ["SOCKET"]
    with open("/tmp/shell", "wb") as copy:
        copy.write(b"#!/bin/sh\n")

    def reach():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name)

    def listen_raw():
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()

    ways = {
        "kill": lambda: os.kill(victim, signal.SIGKILL),
        "kill parent": lambda: os.getppid() > 1 and os.kill(os.getppid(), signal.SIGSTOP),
        "ptrace": lambda: system("ptrace", 16, victim, 0, 0),
        "mount": lambda: system("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "umount": lambda: system("umount2", b"/proc", 2),
        "chroot": lambda: os.chroot("/tmp"),
        "setuid 0 file": lambda: (os.chown("/tmp/shell", 0, 0), os.chmod("/tmp/shell", 0o4755), os.getuid() != 0)[2],
        "become another user": lambda: os.setuid(12345),
        "device": make_device,
        "disk": lambda: open("/dev/sda", "rb").close(),
        "memory of the kernel": lambda: open("/dev/mem", "rb").close(),
        "trigger": lambda: open("/proc/sysrq-trigger", "wb").close(),
        "core pattern": lambda: open("/proc/sys/kernel/core_pattern", "wb").close(),
        "escape by a release agent": lambda: open("/sys/fs/cgroup/release_agent", "wb").close(),
        "another setting of the kernel": lambda: any(map(writable, settings_of_the_kernel())),
        "raw socket": listen_raw,
        "socket without a name": reach,
        "key of the server's session": lambda: call_keyring("keyctl", 10, -3, b"user", name.encode(), 0),
        "key for a neighbour": lambda: call_keyring("add_key", b"user", b"probe", b"x", 1, -4),
        "keyring of the session": lambda: call_keyring("keyctl", 0, -3, 1),
        "host name": lambda: socket.sethostname("taken"),
        "clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "priority": lambda: os.nice(-5),
        "environment of the victim": lambda: open(f"/proc/{victim}/environ", "rb").close(),
        "files of the victim": lambda: os.listdir(f"/proc/{victim}/root/"),
        "other namespace": lambda: system("setns", os.open(f"/proc/{victim}/ns/mnt", os.O_RDONLY), 0),
    }
    tell({name: result for name, do in ways.items() if (result := attempt(do)) is True})


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
    "break-out": break_out,
    "env": lambda: tell(dict(os.environ)),
}
PROBES[os.environ["PROBE"]]()
