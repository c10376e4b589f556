"""Calls of both kinds on a fleet, whatever happens to it, and whether its promises were kept."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterator

import httpx

from tests.support.async_probe import all_ended, listed
from tests.support.fleet import Fleet
from tests.support.node import WITNESS, RunningNode, build_bundle
from tests.support.waiting import until
from tests.support.witness import Witness

CLIENTS = 8
#: So many answers show that work goes on.
PROGRESS = 40


class Load:
    """Calls on whatever nodes there are; remembers what was promised.

    Attributes:
        urls: Of nodes that take calls; entries may change.
        answered: Ids of sync calls with a right answer; accepted: of async calls.
        wrong: Answers that nobody should get.
    """

    def __init__(self, fleet: Fleet, witness: Witness) -> None:
        seen = build_bundle(fleet.folder / "shared", fleet.folder / "witness", WITNESS)
        config = {"WITNESS": witness.address}
        self.later = fleet.api.route("later", "http", type="async", image=seen, config=config, timeout=30)
        self.sync = fleet.api.route("sync", "http")
        self.witness = witness
        self.urls: list[str] = []
        self.answered: list[str] = []
        self.accepted: list[str] = []
        self.wrong: list[str] = []
        self.refused = 0
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self, nodes: list[RunningNode]) -> Iterator[None]:
        """While it is entered, some clients call these nodes, which know the route by then."""
        self.urls = [node.url for node in nodes]
        assert until(lambda: all(node.http.post(self.sync, json={"echo": "x"}).text == "x" for node in nodes))
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._run, n) for n in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
                for client in clients:
                    client.result()

    def goes_on(self, calls: int = PROGRESS) -> bool:
        """Whether so many further calls are answered."""
        wanted = len(self.answered) + calls
        return until(lambda: len(self.answered) >= wanted)

    def alone(self, node: RunningNode, text: str) -> httpx.Response:
        """One call of a node that is cut off: it serves a route that it knows."""
        begun = time.monotonic()
        answer = node.http.post(self.sync, json={"echo": text})
        assert (answer.status_code, answer.text) == (200, text)
        print(f"{text}: answered after {time.monotonic() - begun:.2f} s")
        return answer

    def queue(self, node: RunningNode) -> bool:
        """Whether a node accepts an async call, which then counts as any other."""
        answer = node.http.post(self.later, content=b"0")
        self._queued(answer)
        return answer.status_code == 202

    def check(self, api: RunningNode) -> None:
        """All that was promised was kept; nothing ran twice, nothing was wrong."""
        begun = time.monotonic()
        assert self.wrong == []
        assert until(lambda: all_known(api, self.answered)), "an answered call is recorded"
        records = all_ended(api)
        assert set(self.accepted) <= set(records), "an accepted call is recorded"
        assert {records[one]["status"] for one in self.answered} == {"success"}
        assert not self.witness.twice_at_once
        assert max(self.witness.executions.values()) == 1
        ended = [records[one]["status"] for one in self.accepted]
        print(
            f"{len(self.answered)} sync, {len(ended)} async ({ended.count('error')} interrupted), "
            f"{self.refused} refused, all accounted for {time.monotonic() - begun:.1f} s after the load"
        )
        assert ended.count("success") > ended.count("error")

    def _run(self, number: int) -> None:
        turn = number
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                turn += 1
                url = self.urls[turn % len(self.urls)]
                with contextlib.suppress(httpx.HTTPError):
                    if turn % 3:
                        self._called(client.post(url + self.sync, json={"echo": str(turn)}), str(turn))
                    else:
                        self._queued(client.post(url + self.later, content=b"0.02"))
                self._stop.wait(0.01)

    def _called(self, answer: httpx.Response, expected: str) -> None:
        if answer.status_code == 200 and answer.text == expected:
            self.answered.append(answer.headers["fn_call_id"])
        elif answer.status_code in (502, 503):
            self.refused += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text}")

    def _queued(self, answer: httpx.Response) -> None:
        if answer.status_code == 202:
            self.accepted.append(answer.json()["call_id"])
        elif answer.status_code == 503:
            self.refused += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text}")


def status(api: RunningNode, call_id: str) -> str:
    """What is recorded of a call."""
    found = api.http.get(f"/v1/apps/e2e/calls/{call_id}")
    return str(found.json()["call"]["status"]) if found.status_code == 200 else "none"


def all_known(api: RunningNode, calls: list[str]) -> bool:
    """Whether all of these have a record."""
    return set(calls) <= {call["id"] for call in listed(api)}


def wait_for_record(api: RunningNode, answer: httpx.Response, what: str) -> None:
    """Until an answered call is recorded; tells how long that took."""
    begun = time.monotonic()
    assert until(lambda: status(api, answer.headers["fn_call_id"]) == "success"), f"{what}: no record"
    print(f"{what}: its record {time.monotonic() - begun:.2f} s after the end of it")


def kill(node: RunningNode) -> None:
    """SIGKILL."""
    node.process.kill()
    node.process.wait()
