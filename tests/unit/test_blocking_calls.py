"""What counts as a call that may block the event loop."""

from __future__ import annotations

import socket
import sys

import pytest
from tests.support.blocking import blocks, caller

from hearth.aio.clock import SystemClock


@pytest.mark.parametrize(
    ("event", "args", "expected"),
    [
        ("open", ("/etc/hosts", "r", 0), True),
        ("open", ("/proc/self/stat", "r", 0), False),
        ("sqlite3.connect", (":memory:",), False),
        ("sqlite3.connect", ("fn.db",), True),
        ("time.sleep", (1,), True),
        ("import", ("json",), False),
    ],
)
def test_files_and_sleeps_block_and_memory_does_not(event: str, args: tuple[object, ...], expected: bool) -> None:
    assert blocks(event, args) == expected


@pytest.mark.parametrize("blocking", [True, False])
def test_a_socket_blocks_unless_it_is_told_not_to(blocking: bool) -> None:
    with socket.socket() as made:
        made.setblocking(blocking)
        assert blocks("socket.connect", (made, ("127.0.0.1", 1))) == blocking


def test_a_socket_of_datagrams_does_not_block() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        assert not blocks("socket.connect", (made, ("127.0.0.1", 1)))


def test_what_a_test_does_itself_is_not_hearths() -> None:
    assert caller(sys._getframe()) == ""


def test_what_hearth_calls_is_found_behind_the_library() -> None:
    seen: list[str] = []

    def profile(frame: object, event: str, arg: object) -> None:
        if event == "c_call":
            seen.append(caller(sys._getframe(1)))

    sys.setprofile(profile)
    try:
        SystemClock().now_ms()
    finally:
        sys.setprofile(None)
    assert any(place.startswith("aio/clock.py:") for place in seen)
