"""The order in which a parallel run starts the test files."""

from __future__ import annotations

import types
from typing import Any

from tests.support import durations


def item(nodeid: str) -> Any:
    return types.SimpleNamespace(nodeid=nodeid)


def test_long_files_start_first_and_keep_the_order_of_their_tests() -> None:
    items = [item(name) for name in ("short::b", "long::z", "unknown::a", "short::a", "long::a")]
    found = [one.nodeid for one in durations.ordered(items, {"short": 1.0, "long": 60.0})]
    assert found == ["unknown::a", "long::z", "long::a", "short::b", "short::a"]


def test_files_that_take_equally_long_are_not_mixed() -> None:
    items = [item(name) for name in ("b::1", "a::1", "b::2", "a::2")]
    assert [one.nodeid for one in durations.ordered(items, {"a": 1.0, "b": 1.0})] == ["a::1", "a::2", "b::1", "b::2"]
