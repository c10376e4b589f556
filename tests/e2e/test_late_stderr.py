"""What a function wrote to stderr before its answer is in its call's log, on every driver, in every format."""

from __future__ import annotations

import time

import httpx
from tests.support.node import RunningNode

CALLS = {"http": 200, "json": 200, "http-stream": 50, "default": 5}


def test_each_call_has_the_line_that_was_written_just_before_its_answer(node: RunningNode, any_format: str) -> None:
    path = node.route(f"stderr-{any_format}", any_format)
    lines = [f"line of call {number}" for number in range(CALLS[any_format])]
    if node.driver == "docker":  # what its Engine holds for long is not told apart from the next call's: one by one
        assert [line for line in lines if not has(node, node.call(path, say=line, echo="x"), line)] == []
        return
    answers = {line: node.call(path, say=line, echo="x") for line in lines}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert [line for line, answer in answers.items() if not has(node, answer, line)] == []


def test_a_large_log_is_whole_and_the_next_call_has_none_of_it(node: RunningNode, hot: str) -> None:
    path = node.route(f"large-stderr-{hot}", hot)
    for _ in range(5):
        large = node.call(path, echo="x", stderr=512_000)
        if node.driver == "docker":  # what its Engine still holds when the next call begins is not told apart
            assert has(node, large, "n" * 63, 512_000)
        small = node.call(path, echo="x", say="small")
        assert has(node, large, "n" * 63, 512_000)
        assert has(node, small, "small")


def has(node: RunningNode, answer: httpx.Response, line: str, size: int = 0) -> bool:
    """Whether the log is this line over and over again, nothing else: on Docker, a moment after the answer."""
    size = size or len(line) + 1
    deadline = time.monotonic() + 60
    while (log := node.log(answer)) != (line + "\n") * (size // (len(line) + 1)):
        if time.monotonic() > deadline:
            print(repr(log[:200]), len(log))
            return False
        time.sleep(0.01)
    return True
