"""Logs of which a part comes after the end of their call."""

from __future__ import annotations

from typing import cast

import pytest
from tests.support.clock import FakeClock

from hearth.access.base import EndedCall
from hearth.agent.late import WINDOW_S, LateLogs
from hearth.agent.log import CallLog, LineLog
from hearth.agent.recorder import Recorder
from hearth.models.call import Call

CALL = Call(id="1", app_name="app", path="/")


class Records:
    """Keeps what it is to store."""

    def __init__(self) -> None:
        self.logs: list[bytes] = []

    def add(self, ended: EndedCall) -> None:
        assert ended.call is CALL
        self.logs.append(ended.log)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def late_logs(records: Records, clock: FakeClock, *, lags: bool = True) -> LateLogs:
    return LateLogs(cast(Recorder, records), clock, lags=lags)


def a_log(limit: int = 100) -> CallLog:
    return CallLog(LineLog(dict), limit)


async def test_what_comes_late_is_stored_with_what_was_there_in_few_writes(records: Records, clock: FakeClock) -> None:
    logs, log = late_logs(records, clock), a_log()
    log.write(b"early\n")
    assert logs.take(CALL, log) == b"early\n"
    for piece in (b"late\n", b"later\n"):
        log.write(piece)
    assert records.logs == []
    clock.advance(0.1)
    log.write(b"last\n")
    clock.advance(0.1)
    assert records.logs == [b"early\nlate\nlater\n", b"early\nlate\nlater\nlast\n"]
    clock.advance(10 * WINDOW_S)
    log.write(b"too late")
    clock.advance(1)
    assert (len(records.logs), clock.pending) == (2, 0)


async def test_where_nothing_comes_late_nothing_is_kept(records: Records, clock: FakeClock) -> None:
    logs, log = late_logs(records, clock, lags=False), a_log()
    logs.take(CALL, log)
    log.write(b"x")
    clock.advance(1)
    assert (records.logs, clock.pending) == ([], 0)


async def test_the_limit_holds_for_both_parts_together(records: Records, clock: FakeClock) -> None:
    logs, log = late_logs(records, clock), a_log(limit=8)
    log.write(b"12345")
    logs.take(CALL, log)
    log.write(b"6789")
    clock.advance(0.1)
    log.write(b"more")
    clock.advance(0.1)
    assert records.logs == [b"12345678\n-----max log size 8 bytes exceeded, truncating log-----\n"]


async def test_the_end_of_the_node_loses_nothing_that_has_come(records: Records, clock: FakeClock) -> None:
    logs, log = late_logs(records, clock), a_log()
    logs.take(CALL, log)
    log.write(b"late")
    logs.close()
    assert (records.logs, clock.pending) == ([b"late"], 0)
