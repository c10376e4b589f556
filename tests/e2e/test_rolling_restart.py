"""Nodes of a fleet are replaced one after the other under load, behind HAProxy as it is shipped: no call fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.fleet import Fleet, running_fleet
from tests.support.hosts import Host, Network, networked
from tests.support.names import naming
from tests.support.processes import spawn
from tests.support.waiting import until

CONFIG = Path(__file__).parent.parent.parent / "deploy" / "haproxy" / "haproxy.cfg"
#: Its own view of two files, for the rest of the machine keeps its names; fewer connections, which take descriptors.
START = """
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec haproxy -db -n 1000 -f "$2"
"""
CLIENTS = 4
#: More than the balancer needs to see that a node is not ready: two looks, one second apart.
DRAIN_S = "4"


class Calls:
    """Calls through the balancer, until stopped."""

    def __init__(self, url: str, sync: str, later: str) -> None:
        self.outcomes = Counter[str]()
        self.accepted: list[str] = []
        self.with_async = True
        self._url, self._sync, self._later = url, sync, later
        self._turns = itertools.count()
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While it is entered, some clients call."""
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._call) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
                for client in clients:
                    client.result()

    def go_on(self) -> bool:
        """Whether further calls are answered well."""
        good = self.outcomes["good"]
        return until(lambda: self.outcomes["good"] > good + 20)

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                turn = next(self._turns)
                try:
                    self.outcomes[self._outcome(client, turn)] += 1
                except httpx.HTTPError as exc:
                    self.outcomes[repr(exc)] += 1

    def _outcome(self, client: httpx.Client, turn: int) -> str:
        if turn % 4 == 0 and self.with_async:
            answer = client.post(self._later, json={"echo": "x"})
            if answer.status_code == 202:
                self.accepted.append(answer.json()["call_id"])
                return "good"
        else:
            answer = client.post(self._sync, json={"echo": str(turn), "sleep_ms": turn % 50})
            if answer.text == str(turn):
                return "good"
        return f"{answer.status_code} {answer.text[:200]}"


@contextlib.contextmanager
def balancing(folder: Path, host: Host, names: dict[str, str], network: Network) -> Iterator[str]:
    """HAProxy on a host of its own; its address. It asks the name server for the nodes, as in a fleet for Compose."""
    if shutil.which("haproxy") is None:
        message = "no haproxy; tools/engines.sh installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder.mkdir()
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in names.items()))
    (folder / "resolv.conf").write_text(f"nameserver {network.address}\n")
    command = host.command("unshare", "--mount", "sh", "-ec", START, "haproxy", folder, CONFIG)
    url = f"http://{host.address}:8080"
    with naming(network.address, names), (folder / "log").open("w") as log:
        process = spawn(command, stdout=log, stderr=log)
        try:
            assert until(lambda: process.poll() is not None or _answers(f"{url}/version"))
            assert process.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url).status_code == 200
    return False


def test_a_rolling_replacement_fails_no_call(tmp_path: Path) -> None:
    with networked() as network:
        hosts = {name: network.host(name) for name in ("api", "runner-1", "runner-2", "new-1", "lb")}
        names = {name: hosts[name].address for name in ("api", "runner-1", "runner-2")}
        shared = {"FN_PORT": "8080", "FN_DRAIN_DELAY_S": DRAIN_S}
        with running_fleet(tmp_path, runners=0, hosts=hosts, **shared) as fleet:
            for name in ("runner-1", "runner-2"):
                fleet.start_runner(name)
            sync, later = fleet.api.route("sync", "http"), fleet.api.route("later", "http", type="async")
            with balancing(tmp_path / "lb", hosts["lb"], names, network) as url:
                assert until(lambda: _both_serve(fleet, url, sync))
                calls = Calls(url, sync, later)
                with calls.running():
                    assert calls.go_on()
                    _replace_runners(fleet, calls, names)
                    _replace_api(fleet, calls, url)
            assert set(calls.outcomes) == {"good"}, calls.outcomes
            for call_id in calls.accepted:
                where = f"/v1/apps/e2e/calls/{call_id}"
                assert until(lambda where=where: fleet.api.http.get(where).json()["call"]["status"] == "success")  # type: ignore[misc]


def _both_serve(fleet: Fleet, url: str, path: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url + path, json={"echo": "x"})
    return all(_completed(fleet, number) for number in range(2))


def _completed(fleet: Fleet, number: int) -> int:
    return int(fleet.runners[number].http.get("/stats").json()["Complete"])


def _replace_runners(fleet: Fleet, calls: Calls, names: dict[str, str]) -> None:
    """The first by one with another address, the second in its place."""
    assert fleet.runners[0].stop() == 0
    fleet.start_runner("new-1")
    names["runner-1"] = fleet.hosts["new-1"].address
    assert until(lambda: _completed(fleet, 2) > 0), "the balancer finds the new one"
    assert calls.go_on()
    assert fleet.runners[1].stop() == 0
    fleet.start_runner("runner-2")
    assert until(lambda: _completed(fleet, 3) > 0)
    assert calls.go_on()


def _replace_api(fleet: Fleet, calls: Calls, url: str) -> None:
    """Sync calls go on without it; with a single one, async calls cannot be accepted meanwhile."""
    calls.with_async = False
    assert calls.go_on(), "async calls that were being accepted are"
    assert fleet.api.stop() == 0
    assert calls.go_on()
    fleet.start_api()
    assert until(lambda: _answers(f"{url}/v1/apps"))
    calls.with_async = True
    assert calls.go_on()
