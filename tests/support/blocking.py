"""A pytest plugin: a unit or integration test fails if Hearth does on an event loop what may block it.

The interpreter's audit events say what is done; whatever Hearth asks of a file, a process, a name server or a sleep
while a loop runs in the thread is reported, unless it is allowed below.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

SOURCE: Final = f"{Path(__file__).parents[2] / 'src' / 'hearth'}/"
TESTS: Final = Path(__file__).parents[1]
WATCHED: Final = (TESTS / "unit", TESTS / "integration")
EVENTS: Final = frozenset(
    {
        "open",
        "os.listdir",
        "os.scandir",
        "os.system",
        "shutil.copyfile",
        "shutil.rmtree",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "sqlite3.connect",
        "subprocess.Popen",
        "time.sleep",
    }
)
#: Files, and functions with all that they call, that may: mostly at the start, before anybody waits.
ALLOWED: Final = {
    "cli/local.py:temporary_settings": "makes and removes a folder before its node serves, and after it has",
    "drivers/sockets.py": "opens names in memory, not their content (O_PATH)",
    "images/registry/credential_helpers.py": "starts the helper; asyncio forks in the thread of the loop",
    "drivers/local/bundle.py:Bundle.hold": "opens a folder; a thread would lose the descriptor of who gives up",
    "models/timing.py:zone_of": "reads a file of some KiB of this machine, once for each time zone",
    "nodes/identity.py": "reads or makes the file of the node's id, while the node starts",
    "nodes/ports.py:holder_of": "finds who holds the port of a node that cannot start",
    "queues/redis.py:RedisQueue.__init__": "reads the script once, while the node starts",
    "queues/redis.py:RedisQueue._greet": "the library reads its own version at a connection",
    "queues/redis.py:RedisQueue._hear": "the library reads its own version at a connection",
    "registry.py:Registry.factory": "finds what installed packages offer once, while the node starts",
    "server/extensions.py:_installed": "loads what installed packages offer once, while the node starts",
    "sql/schema/migrate.py": "lists the migrations once, while the node starts",
    "sql/schema/migrations/env.py": "lists the migrations once, while the node starts",
    "stores/logs/s3.py:open_s3": "the library loads its tables once, while the node starts",
}
_seen: list[str] = []
_sleep = time.sleep


def blocks(event: str, args: tuple[Any, ...]) -> bool:
    """Return whether an audit event can take long: memory and kernel tables cannot, nor sockets that do not block."""
    if event == "socket.connect":
        return args[0].type != socket.SOCK_DGRAM and args[0].gettimeout() != 0
    if event == "sqlite3.connect":
        return args[0] != ":memory:"
    if event in ("open", "os.listdir", "os.scandir"):
        path = str(args[0])
        return not path.startswith(("/proc/", "/sys/", "/dev/")) and not path.endswith(".py")  # source in a traceback
    return event in EVENTS


def caller(frame: FrameType | None) -> str:
    """Return the function of Hearth that is behind a frame; empty if a test or an import is nearer."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCE):
            return f"{file.removeprefix(SOURCE)}:{frame.f_lineno} {frame.f_code.co_qualname}"
        if file != __file__ and file.startswith((str(TESTS), "<frozen importlib")):
            return ""
        frame = frame.f_back
    return ""


def is_allowed(frame: FrameType | None) -> bool:
    """Return whether a function of Hearth that may block is among those that wait for this one."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(SOURCE):
            file = code.co_filename.removeprefix(SOURCE)
            if file in ALLOWED or f"{file}:{code.co_qualname}" in ALLOWED:
                return True
        frame = frame.f_back
    return False


def look(event: str, args: tuple[Any, ...]) -> None:
    """Note what blocks; an audit hook."""
    if event not in EVENTS:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    frame = sys._getframe(1)
    if blocks(event, args) and (place := caller(frame)) and not is_allowed(frame):
        _seen.append(f"{event} {args[0]!r} in {place}")


def sleep(seconds: Any) -> None:
    """Sleep as ``time.sleep``, which raises no audit event before Python 3.13."""
    look("time.sleep", (seconds,))
    _sleep(seconds)


def pytest_configure() -> None:
    """Look from now on; an audit hook stays as long as the process."""
    sys.addaudithook(look)
    time.sleep = sleep


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that passed, but blocked."""
    _seen.clear()
    yield
    if _seen and any(item.path.is_relative_to(folder) for folder in WATCHED):
        pytest.fail("blocked the event loop: " + "; ".join(_seen), pytrace=False)
