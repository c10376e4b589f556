"""Nodes of a fleet are replaced one after the other under load, behind a balancer that asks /readyz: no call fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.fleet import running_fleet
from tests.support.node import RunningNode
from tests.support.waiting import until


class Balancer:
    """Knows which nodes are ready; looks every tenth of a second."""

    def __init__(self) -> None:
        self.nodes: list[RunningNode] = []
        self.ready: list[str] = []
        self._stop = threading.Event()

    def look(self) -> None:
        """Until stopped."""
        with httpx.Client(timeout=2) as client:
            while not self._stop.wait(0.1):
                self.ready = [node.url for node in list(self.nodes) if self._is_ready(client, node.url)]

    def stop(self) -> None:
        self._stop.set()

    @staticmethod
    def _is_ready(client: httpx.Client, url: str) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return client.get(f"{url}/readyz").status_code == 200
        return False


@contextlib.contextmanager
def balancing() -> Iterator[Balancer]:
    balancer = Balancer()
    thread = threading.Thread(target=balancer.look)
    thread.start()
    try:
        yield balancer
    finally:
        balancer.stop()
        thread.join()


@pytest.mark.parametrize("kind", ["runner", "api"])
def test_a_rolling_restart_fails_no_call(tmp_path: Path, kind: str) -> None:
    stop, outcomes, turns = threading.Event(), Counter[str](), itertools.count()
    with running_fleet(tmp_path, runners=2, FN_DRAIN_DELAY_S="1") as fleet, balancing() as balancer:
        path = fleet.api.route("sync", "http")
        later = fleet.api.route("later", "http", type="async")
        accepted: list[str] = []
        balancer.nodes = list(fleet.runners)
        assert until(lambda: len(balancer.ready) == 2)
        assert {fleet.call(runner, path, echo="x").text for runner in fleet.runners} == {"x"}

        def call() -> None:
            with httpx.Client(timeout=60) as client:
                while not stop.is_set():
                    turn = next(turns)
                    url = balancer.ready[turn % len(balancer.ready)]
                    try:
                        if turn % 4 or kind == "api":
                            answer = client.post(url + path, json={"echo": str(turn), "sleep_ms": turn % 50})
                            outcomes["good" if answer.text == str(turn) else f"{answer.status_code}"] += 1
                        else:
                            answer = client.post(url + later, json={"echo": "x"})
                            accepted.append(answer.json()["call_id"])
                    except httpx.HTTPError as exc:
                        outcomes[repr(exc)] += 1

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(call) for _ in range(4)]
            try:
                if kind == "runner":
                    for number in range(2):
                        new = fleet.start_runner(f"new{number}")
                        balancer.nodes.append(new)
                        assert until(lambda url=new.url: url in balancer.ready)  # type: ignore[misc]
                        assert fleet.runners[number].stop() == 0
                else:
                    port = fleet.api.url.rpartition(":")[2]
                    assert fleet.api.stop() == 0
                    fleet.start_api(FN_PORT=port)
                good = outcomes["good"]
                assert until(lambda: outcomes["good"] > good + 20)
            finally:
                stop.set()
            for client in clients:
                client.result()
        assert set(outcomes) == {"good"}, outcomes
        for call_id in accepted:
            where = f"/v1/apps/e2e/calls/{call_id}"
            assert until(lambda where=where: fleet.api.http.get(where).json()["call"]["status"] == "success")  # type: ignore[misc]
