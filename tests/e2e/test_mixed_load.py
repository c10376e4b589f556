"""Good and misbehaving calls together: each good call gets exactly its own answer."""

from __future__ import annotations

import concurrent.futures
import itertools
import random

import httpx
from tests.support.node import RunningNode

MISBEHAVIOUR: tuple[dict[str, object], ...] = (
    {"exit": 3},
    {"exit": 0},
    {"raw": "garbage\n\n\n\n"},
    {"surplus": '{"body":"stolen"}\n', "echo": "s"},
    {"surplus": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen", "echo": "s"},
    {"die": True, "echo": "half of an answer"},
    {"after": 1, "echo": "last words"},
    {"stderr": 100_000, "echo": "noise"},
)


Orders = dict[str, object]

#: How many misbehave. Nearly each costs a container: with more, the time goes into starting them one after another.
SHARE = {"process": 0.08, "docker": 0.016}


def _mixed(node: RunningNode, count: int, seed: int) -> list[Orders]:
    """Orders: most of them good, with a text of its own each; every misbehaviour occurs."""
    bad = max(len(MISBEHAVIOUR), round(count * SHARE[node.driver]))
    orders: list[Orders] = [{"echo": f"answer {n} of {seed}"} for n in range(count)]
    for place, misbehaviour in zip(random.Random(seed).sample(range(count), bad), itertools.cycle(MISBEHAVIOUR)):
        orders[place] = dict(misbehaviour)
    return orders


def _is_good(orders: Orders) -> bool:
    return list(orders) == ["echo"]


def _fault(node: RunningNode, good: str, bad: str, orders: Orders) -> str | None:
    """Make the call; what is wrong with its answer."""
    if not _is_good(orders):
        return _stolen(node, bad, orders)
    answer = node.call(good, **orders)
    if (answer.status_code, answer.text) == (200, orders["echo"]):
        return None
    return f"{orders}: {answer.status_code} {answer.text}"


def _stolen(node: RunningNode, path: str, orders: Orders) -> str | None:
    """Make a call to a container that may be dying; whether its answer is anybody else's."""
    try:
        answer = node.call(path, **orders)
    except httpx.RemoteProtocolError:  # the answer was cut off, and this shows it
        return None
    mine = answer.text == orders["echo"] if _is_good(orders) else "stolen" not in answer.text
    return None if mine or answer.status_code >= 500 else f"{orders}: {answer.status_code} {answer.text}"


def test_a_thousand_calls_in_sequence(node: RunningNode) -> None:
    def sequence(hot: str) -> list[str]:
        good, bad = node.route(f"good-{hot}", hot), node.route(f"bad-{hot}", hot)
        return [fault for orders in _mixed(node, 1000, 1) if (fault := _fault(node, good, bad, orders))]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # one sequence for each format
        assert list(pool.map(sequence, ("http", "json"))) == [[], []]


def test_five_hundred_calls_in_parallel(node: RunningNode, hot: str) -> None:
    good, bad = node.route(f"good-{hot}", hot, timeout=60), node.route(f"bad-{hot}", hot, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        wrong = [
            fault for fault in pool.map(lambda orders: _fault(node, good, bad, orders), _mixed(node, 500, 2)) if fault
        ]
    assert wrong == []
    stats = node.http.get("/stats").json()
    assert (stats["Queue"], stats["Running"]) == (0, 0)


def test_within_one_function_nobody_gets_an_answer_of_somebody_else(node: RunningNode, hot: str) -> None:
    """A container that dies of one call may take the next with it, as an error; never with a wrong answer."""
    path = node.route(f"shared-{hot}", hot, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wrong = [fault for fault in pool.map(lambda orders: _stolen(node, path, orders), _mixed(node, 200, 3)) if fault]
    assert wrong == []
