"""Good and misbehaving calls together: each good call gets exactly its own answer."""

from __future__ import annotations

import concurrent.futures
import itertools
import random

from tests.support.node import RunningNode

MISBEHAVIOUR = (
    {"exit": 3},
    {"exit": 0},
    {"raw": "garbage\n\n\n\n"},
    {"surplus": '{"body":"stolen"}\n', "echo": "s"},
    {"surplus": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", "echo": "s"},
    {"die": True, "echo": "half of an answer"},
    {"after": 1, "echo": "last words"},
    {"stderr": 100_000, "echo": "noise"},
)


def _mixed(count: int, seed: int) -> list[dict[str, object]]:
    """Orders: three of four good, with a text of its own each."""
    dice = random.Random(seed)
    bad = itertools.cycle(MISBEHAVIOUR)
    return [dict(next(bad)) if dice.random() < 0.25 else {"echo": f"answer {n} of {seed}"} for n in range(count)]


def _wrong(node: RunningNode, path: str, orders: dict[str, object]) -> str | None:
    """What is wrong with the answer to a good call; nothing is, with that to a bad one."""
    try:
        answer = node.call(path, **orders)
    except Exception as exc:  # a misbehaving function may break its own connection
        return None if len(orders) > 1 or "echo" not in orders else f"{orders}: {exc!r}"
    if list(orders) != ["echo"]:
        return None if "stolen" not in answer.text else f"{orders}: {answer.text}"
    if (answer.status_code, answer.text) == (200, orders["echo"]):
        return None
    return f"{orders}: {answer.status_code} {answer.text}"


def test_a_thousand_calls_in_sequence(node: RunningNode, hot: str) -> None:
    path = node.route(f"sequence-{hot}", hot)
    count = 1000 if node.driver == "process" else 300
    wrong = [fault for orders in _mixed(count, 1) if (fault := _wrong(node, path, orders))]
    assert wrong == []


def test_five_hundred_calls_in_parallel(node: RunningNode, hot: str) -> None:
    path = node.route(f"parallel-{hot}", hot, timeout=120)
    workers = 64 if node.driver == "process" else 16
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        wrong = [fault for fault in pool.map(lambda orders: _wrong(node, path, orders), _mixed(500, 2)) if fault]
    assert wrong == []
    stats = node.http.get("/stats").json()
    assert (stats["Queue"], stats["Running"]) == (0, 0)
