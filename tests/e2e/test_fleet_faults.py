"""A fleet whose nodes die and whose network fails, under mixed load: no wrong answer, no call lost or run twice."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.fleet import Fleet, running_fleet
from tests.support.node import WITNESS, RunningNode, build_bundle
from tests.support.waiting import until
from tests.support.witness import watching

ROUNDS = int(os.environ.get("HEARTH_FLEET_ROUNDS", "1"))
FINAL = ("success", "error", "timeout")


def _address(node: RunningNode) -> tuple[str, int]:
    parts = urlsplit(node.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _kill(node: RunningNode) -> None:
    node.process.send_signal(signal.SIGKILL)
    node.process.wait()


class Load:
    """Calls of both kinds on whatever runners there are; remembers what was promised."""

    def __init__(self, sync: str, later: str) -> None:
        self.sync, self.later = sync, later
        self.urls: list[str] = []
        self.answered: list[str] = []
        self.accepted: list[str] = []
        self.wrong: list[str] = []
        self.refused = 0
        self._stop = threading.Event()

    def run(self, number: int) -> None:
        """One client, until stopped."""
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

    @contextlib.contextmanager
    def running(self):  # type: ignore[no-untyped-def]
        """While it is entered, four clients call."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(self.run, n) for n in range(4)]
            try:
                yield
            finally:
                self._stop.set()
                for client in clients:
                    client.result()


def _status(api: RunningNode, call_id: str) -> str:
    found = api.http.get(f"/v1/apps/e2e/calls/{call_id}")
    return str(found.json()["call"]["status"]) if found.status_code == 200 else "none"


def test_a_fleet_under_faults_keeps_its_promises(tmp_path: Path) -> None:
    environment = {"FN_MQ_VISIBILITY_S": "3", "FN_RUNNER_QUIET_S": "2", "FN_RUNNER_CONNECT_S": "1"}
    with watching() as witness, running_fleet(tmp_path, runners=0, **environment) as fleet:
        seen = build_bundle(tmp_path / "shared", tmp_path / "witness", WITNESS)
        config = {"WITNESS": witness.address}
        later = fleet.api.route("later", "http", type="async", image=seen, config=config, timeout=30)
        load = Load(fleet.api.route("sync", "http"), later)
        with faulty_proxy(_address(fleet.api)) as first, faulty_proxy(_address(fleet.api)) as second:
            nodes = [fleet.start_runner("runner0", first.url), fleet.start_runner("runner1", second.url)]
            load.urls = [node.url for node in nodes]
            assert until(lambda: all(node.http.post(load.sync, json={"echo": "x"}).text == "x" for node in nodes))
            with load.running():
                for _ in range(ROUNDS):
                    _round(fleet, load, nodes, first, second)
            _check(fleet.api, load, witness.executions, witness.twice_at_once)


def _round(fleet: Fleet, load: Load, nodes: list[RunningNode], first: FaultyProxy, second: FaultyProxy) -> None:
    progress = len(load.answered)
    assert until(lambda: len(load.answered) > progress + 50)
    first.delay_s, second.cut_rate = 0.02, 0.05
    progress = len(load.answered)
    assert until(lambda: len(load.answered) > progress + 50), "a slow and lossy network is no end"
    first.delay_s = second.cut_rate = 0.0
    first.deaf = True
    begun = time.monotonic()
    one = nodes[0].http.post(load.sync, json={"echo": "alone"})
    assert (one.status_code, one.text) == (200, "alone"), "a known route serves while its runner is cut off"
    print(f"first answer of a cut-off runner after {time.monotonic() - begun:.2f} s")
    first.deaf = False
    begun = time.monotonic()
    assert until(lambda: _status(fleet.api, one.headers["fn_call_id"]) == "success"), "its record comes later"
    print(f"its record after {time.monotonic() - begun:.2f} s")
    _kill(fleet.api)
    begun = time.monotonic()
    two = nodes[1].http.post(load.sync, json={"echo": "no api"})
    assert (two.status_code, two.text) == (200, "no api")
    _kill(nodes[1])  # with ends of calls that only its disk knows
    first.target = second.target = _address(fleet.start_api())
    nodes[1] = fleet.start_runner("runner1", second.url)
    load.urls[1] = nodes[1].url
    assert until(lambda: _status(fleet.api, two.headers["fn_call_id"]) == "success"), "the disk did know"
    print(f"whole again {time.monotonic() - begun:.2f} s after two nodes died")


def _check(api: RunningNode, load: Load, executions: dict[str, int], twice_at_once: list[str]) -> None:
    begun = time.monotonic()
    assert load.wrong == []
    assert until(lambda: all(_status(api, one) in FINAL for one in load.accepted)), "an accepted call ends"
    assert until(lambda: all(_status(api, one) == "success" for one in load.answered)), "an answered call is recorded"
    assert not twice_at_once
    assert max(executions.values()) == 1
    ended = [_status(api, one) for one in load.accepted]
    print(
        f"{len(load.answered)} sync, {len(ended)} async ({ended.count('error')} interrupted), {load.refused} refused, "
        f"all accounted for {time.monotonic() - begun:.1f} s after the load"
    )
    assert ended.count("success") > ended.count("error")
