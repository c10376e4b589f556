"""The places in which mutants change a function."""

from __future__ import annotations

import ast

import pytest
from tests.mutants.sites import guard_sites, sites

SOURCE = '''
class Queue:
    def take(self, limit):
        """Take some."""
        log.info("taken", limit=limit)
        if (
            limit <= self.most
        ):
            self.taken += 1
        return self.items[:limit]
'''


def changed(function: str, guard: str, instead: str) -> str:
    tree = ast.parse(SOURCE)
    (site,) = guard_sites(tree, function, guard, instead)
    site.apply()
    return ast.unparse(tree)


def test_a_guard_is_found_however_it_is_formatted() -> None:
    assert "if False:" in changed("Queue.take", "limit<=self.most", "False")


def test_a_statement_can_be_left_out() -> None:
    assert "self.taken += 1" not in changed("Queue.take", "self.taken += 1", "pass")
    assert "log.info" not in changed("Queue.take", 'log.info("taken", limit=limit)', "pass")


@pytest.mark.parametrize(("function", "guard"), [("Queue.give", "limit <= self.most"), ("Queue.take", "limit < 3")])
def test_what_is_not_there_is_not_found(function: str, guard: str) -> None:
    assert guard_sites(ast.parse(SOURCE), function, guard, "False") == []


def test_every_change_is_one_and_none_is_of_a_log_line() -> None:
    assert [site.text for site in sites(ast.parse(SOURCE))] == [
        "limit <= self.most -> True",
        "limit <= self.most -> False",
        "limit <= self.most -> limit < self.most",
        "self.taken += 1 -> pass",
    ]
