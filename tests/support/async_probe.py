"""Watches the promises on async calls while nodes, queues and functions die."""

from __future__ import annotations

import collections
import contextlib
import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.support.node import RunningNode
from tests.support.witness import Witness

LEGAL = {"queued": 0, "running": 1, "success": 2, "error": 2, "timeout": 2, "cancelled": 2}
#: Why a call may end as an error here: its server died, or its function was killed.
EXCUSES = ("the server stopped while the call was running", "container exit code", "container out of memory")


class Probe:
    """Makes calls from several threads, and looks at them, whatever happens to the servers.

    Args:
        urls: Of nodes that share their stores. The last one is looked at; who cannot reach one goes to the next.
        wanted: How many calls are to be accepted.
        cancels: The share of calls that are cancelled as soon as they are accepted.
        retries: Calls may run again: one that ran may be queued.
        keys: The share of requests with an idempotency key. They are repeated until they are accepted, some once more.
        outages: The database dies, too: who looks then may get no answer.

    Attributes:
        ids_of: The calls that requests with each key were answered with.
        asked: Calls that were to be cancelled.
        cancelled: Those of them whose cancel was answered with 200.
    """

    def __init__(
        self,
        urls: Sequence[str],
        path: str,
        wanted: int,
        *,
        cancels: float = 0.0,
        retries: bool = False,
        keys: float = 0.0,
        outages: bool = False,
    ) -> None:
        self.ids_of: defaultdict[str, set[str]] = defaultdict(set)
        self._keys = keys
        self._outages = {500, 503} if outages else set()
        self.asked: set[str] = set()
        self.cancelled: set[str] = set()
        self._cancels = cancels
        self._legal = {**LEGAL, "running": 0} if retries else LEGAL
        self.accepted: list[str] = []
        self.refused = 0
        self.violations: list[str] = []
        self.done = threading.Event()
        self._urls, self._path, self._wanted = urls, path, wanted
        self._changed = threading.Condition()

    def call_on(self, number: int) -> None:
        """Make calls until there are enough."""
        dice = random.Random(number)
        names = map(f"key-{number}-{{}}".format, itertools.count())  # the number changes later
        body, key = "0", ""
        with httpx.Client(timeout=60) as http:
            while len(self.accepted) < self._wanted and not self.done.is_set():
                if not key:
                    body = f"{dice.choice((0, 0, 0.01, 0.05)):.2f}"
                    key = next(names) if dice.random() < self._keys else ""
                url = self._urls[number % len(self._urls)]
                try:
                    answer = http.post(f"{url}{self._path}", content=body, headers=_with(key))
                    if answer.status_code == 202:
                        call_id, used, key = self._accept(answer, key), key, ""
                        if used and dice.random() < 0.5:
                            self._repeat(http, url, body, used)
                        if dice.random() < self._cancels:
                            self._cancel(http, url, call_id)
                        continue
                    if key and answer.status_code in (409, 422):
                        self.violations.append(f"{key}: {answer.status_code} {answer.text}")
                        key = ""
                except httpx.TransportError:
                    number += 1
                self.refused += 1
                self.done.wait(0.02)

    def _accept(self, answer: httpx.Response, key: str) -> str:
        call_id: str = answer.json()["call_id"]
        with self._changed:
            self.accepted.append(call_id)
            if key:
                self.ids_of[key].add(call_id)
            self._changed.notify_all()
        return call_id

    def _repeat(self, http: httpx.Client, url: str, body: str, key: str) -> None:
        """Send a request again whose answer is stored."""
        answer = http.post(f"{url}{self._path}", content=body, headers=_with(key))
        if answer.status_code == 202:
            self.ids_of[key].add(answer.json()["call_id"])

    def _cancel(self, http: httpx.Client, url: str, call_id: str) -> None:
        self.asked.add(call_id)
        if http.post(f"{url}/v1/apps/e2e/calls/{call_id}/cancel").status_code == 200:
            self.cancelled.add(call_id)

    def wait_for(self, accepted: int) -> None:
        """Until so many calls have been accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.accepted) >= accepted, 60), len(self.accepted)

    def look_on(self) -> None:
        """Whatever was accepted is queued, running or ended at every look, and never goes back."""
        seen: dict[str, str] = {}
        dice = random.Random(0)
        with httpx.Client(base_url=self._urls[-1], timeout=60) as http:
            while not self.done.is_set():
                if not self.accepted:
                    self.done.wait(0.01)
                    continue
                call_id = dice.choice(self.accepted[-200:])
                with contextlib.suppress(httpx.TransportError):
                    self._check(call_id, http.get(f"/v1/apps/e2e/calls/{call_id}"), seen)
                    continue
                self.done.wait(0.02)

    def _check(self, call_id: str, answer: httpx.Response, seen: dict[str, str]) -> None:
        if answer.status_code in self._outages:
            return
        status = answer.json()["call"]["status"] if answer.status_code == 200 else f"HTTP {answer.status_code}"
        before = seen.get(call_id, "queued")
        legal = self._legal
        if status not in legal or legal[status] < legal[before] or (legal[before] == 2 and status != before):
            self.violations.append(f"{call_id}: {before} -> {status}")
        else:
            seen[call_id] = status


def _with(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def all_ended(node: RunningNode) -> dict[str, dict[str, Any]]:
    """Every record, once none of them is queued or running: also of calls whose 202 was lost on its way."""
    deadline = time.monotonic() + 120
    while True:
        records = {call["id"]: call for call in listed(node)}
        left = [call for call in records.values() if call["status"] in ("queued", "running")]
        if not left:
            return records
        assert time.monotonic() < deadline, left[:3]
        time.sleep(0.1)


def listed(node: RunningNode) -> Iterator[dict[str, Any]]:
    """Every record."""
    cursor = ""
    while True:
        page = node.http.get("/v1/apps/e2e/calls", params={"per_page": 100, "cursor": cursor}).json()
        yield from page["calls"]
        cursor = page["next_cursor"]
        if not cursor:
            return


def judge(probe: Probe, witness: Witness, records: dict[str, dict[str, Any]]) -> None:
    """Whether all promises were kept."""
    print(
        f"accepted {len(probe.accepted)}, refused {probe.refused}, recorded {len(records)}, "
        f"{dict(collections.Counter(call['status'] for call in records.values()))}"
    )
    assert not probe.violations, probe.violations[:9]
    assert len(set(probe.accepted)) == len(probe.accepted)
    assert set(probe.accepted) - set(records) == set()
    assert witness.twice_at_once == []
    assert probe.cancelled <= {call_id for call_id, call in records.items() if call["status"] == "cancelled"}
    assert all(len(call_ids) == 1 for call_ids in probe.ids_of.values()), probe.ids_of
    for work, call_ids in witness.calls_of.items():
        first = {one for one in call_ids if not records[one].get("origin", "").startswith("redrive ")}
        assert len(first) <= 1, (work, first)
        assert first <= probe.ids_of.get(work, first), (work, first)
    for call_id, call in records.items():
        assert witness.executions[call_id] <= call.get("attempt", 1), call
        if call["status"] == "success":
            assert witness.executions[call_id] >= 1, call
        elif call["status"] == "cancelled":
            assert call_id in probe.asked, call
        else:
            assert call["status"] == "error", call
            assert call["error"].startswith(EXCUSES), call
    assert any(call["status"] == "success" for call in records.values())
