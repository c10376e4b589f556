"""The length of the walk of a warm call: every function on it costs time, at each call.

The walk is measured on a real node, from the socket to the socket, with a function that is a process. Generators and
comprehensions count as what contains them; libraries do not count.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx
import pytest
from tests.support.node import build_multi
from tests.support.raw_http import RawClient
from tests.support.turns import MeasuredNode, measured_node

import hearth
from hearth.telemetry import logs

#: The most functions of Hearth that a warm call may enter on the thread of the loop, and the files that hold them.
#: Lower these with every step that shortens the walk. The aim is 80 in 15.
MAX_FUNCTIONS = 62
MAX_FILES = 20

#: More of both for a head which is not that of the call before: they read it, and compose what the function gets of it.
PARSING = 13
PARSING_FILES = 1

_ROOT = str(Path(hearth.__file__).parent)
_CALLS = 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    """A node in this process, with the log of a node that is not told otherwise."""
    data = tmp_path_factory.mktemp("warm-path")
    image = build_multi(data, data / "source")
    logs.configure()
    with measured_node(data, driver="process", api_cors="") as started:
        route = {"route": {"image": image, "format": "http", "timeout": 60, "idle_timeout": 60}}
        assert httpx.put(f"{started.url}/v1/apps/warm/routes/f", json=route).status_code == 200
        yield started
    logs.reset()


class Walk:
    """The functions of Hearth that were entered."""

    def __init__(self) -> None:
        self.entered: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_ROOT) and not code.co_name.startswith("<"):
            self.entered[code] += 1

    def __str__(self) -> str:
        """Show the functions, file by file, with how often a call enters each."""
        lines = [f"{len(self.entered)} functions in {len(self.files())} files"]
        for name in sorted(self.files()):
            own = [(code.co_qualname, count) for code, count in self.entered.items() if code.co_filename == name]
            found = [f"{function} x{count / _CALLS:g}" for function, count in own]
            lines.append(f"{name.removeprefix(_ROOT)}: {', '.join(sorted(found))}")
        return "\n".join(lines)

    def files(self) -> set[str]:
        return {code.co_filename for code in self.entered}


def call(client: RawClient, field: str) -> None:
    client.send(f'POST /r/warm/f HTTP/1.1\r\nHost: localhost\r\nX: {field}\r\nContent-Length: 12\r\n\r\n{{"echo":"x"}}')
    answer = client.answer()
    assert answer
    assert answer.body == b"x"


@pytest.mark.parametrize(("heads", "more"), [(1, 0), (2, PARSING)], ids=["the same head", "another head"])
def test_a_warm_call_enters_few_functions(node: MeasuredNode, heads: int, more: int) -> None:
    walk = Walk()
    with RawClient(node.url) as client:
        for _ in range(30):  # the first answers of a container are checked more closely
            call(client, "0")
        node.on_loop(lambda: sys.setprofile(walk))
        for number in range(_CALLS):
            call(client, str(number % heads))
        node.on_loop(lambda: sys.setprofile(None))
    # What a call enters less than every second time is something else that runs meanwhile: a sweep, a refresh.
    walk.entered = Counter({code: count for code, count in walk.entered.items() if count >= _CALLS / 2})
    assert len(walk.entered) <= MAX_FUNCTIONS + more, str(walk)
    assert len(walk.files()) <= MAX_FILES + (PARSING_FILES if more else 0), str(walk)
