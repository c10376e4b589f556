"""Wherever a connection between runner and API node breaks: a call runs once, and has one record."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.faulty_proxy import Cut, FaultyProxy, faulty_proxy
from tests.support.fleet import Fleet, running_fleet
from tests.support.fleet_load import kill
from tests.support.node import WITNESS, build_bundle
from tests.support.processes import leaves_below
from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from tests.support.witness import Witness, watching

WHOLE = 1 << 20
#: Bytes that still arrive: none, within request line, head, body; all, with the answer lost.
REQUEST_OFFSETS = (0, 1, 12, 60, 150, 250, 350, 450, 600, 800, WHOLE)
ANSWER_OFFSETS = (1, 20, 60, 100)
REQUESTS = ("POST /v1/runner/async ", "POST /v1/runner/start ", "POST /v1/runner/finish ", "POST /v1/runner/settle ")


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with watching() as seen:
        yield seen


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, runners=0, FN_MQ_VISIBILITY_S="5") as running:
        yield running


@pytest.fixture(scope="module")
def proxy(fleet: Fleet) -> Iterator[FaultyProxy]:
    with faulty_proxy(_address(fleet.api.url)) as between:
        fleet.start_runner("runner", between.url)
        yield between


@pytest.fixture(scope="module")
def path(fleet: Fleet, witness: Witness) -> str:
    image = build_bundle(fleet.folder / "shared", fleet.folder / "witness", WITNESS)
    return fleet.api.route("seen", "http", type="async", image=image, config={"WITNESS": witness.address})


@pytest.mark.parametrize("request_line", REQUESTS)
def test_a_call_runs_once_wherever_its_connection_breaks(
    fleet: Fleet, proxy: FaultyProxy, path: str, witness: Witness, request_line: str
) -> None:
    before = _listed(fleet)
    cuts = [Cut(request_line.encode(), offset) for offset in REQUEST_OFFSETS]
    cuts += [Cut(request_line.encode(), offset, of_answer=True) for offset in ANSWER_OFFSETS]
    calls = set()
    for cut in cuts:
        proxy.cut = cut
        answer = fleet.runners[0].http.post(path, content=b"0")
        call = fleet.api.ended(answer)
        assert call["status"] == "success", (cut, call)
        assert until(lambda cut=cut: cut.made), cut  # type: ignore[misc]
        calls.add(call["id"])
    assert {call_id: witness.executions[call_id] for call_id in calls} == dict.fromkeys(calls, 1)
    assert _listed(fleet) - before == calls, "one record for each, and no other"


def test_a_sync_call_has_one_record_wherever_its_end_breaks(fleet: Fleet, proxy: FaultyProxy) -> None:
    path = fleet.api.route("sync", "http")
    assert fleet.call(fleet.runners[0], path, echo="x").text == "x"
    before = _listed(fleet)
    cuts = [Cut(b"POST /v1/runner/finish ", offset) for offset in REQUEST_OFFSETS]
    for cut in cuts:
        proxy.cut = cut
        answer = fleet.call(fleet.runners[0], path, echo="once", say="a line")
        assert (answer.status_code, answer.text) == (200, "once")
        assert fleet.api.record(answer)["status"] == "success"
        assert fleet.api.log(answer) == "a line\n"
        assert cut.made
    assert len(_listed(fleet) - before) == len(cuts)


def test_an_accepted_call_whose_api_node_died_before_its_record_has_one_message(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The runner tries again with the next API node. Guard: the call's id is the message's key."""
    stores: dict[str, Any] = {"FN_MQ_URL": redis_server.url("died"), "FN_RUNNER_CONNECT_S": "30"}
    with (
        watching() as witness,
        running_fleet(tmp_path, runners=0, **stores) as fleet,
        faulty_proxy(_address(fleet.api.url)) as between,
        redis_server.client() as redis,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        image = build_bundle(tmp_path / "shared", tmp_path / "witness", WITNESS)
        fields = {"type": "async", "image": image, "config": {"WITNESS": witness.address}}
        path = fleet.api.route("seen", "http", memory=64, **fields)
        runner = fleet.start_runner("runner", between.url, FN_MAX_TOTAL_MEMORY=str(1000 << 20))
        hog = runner.http.post(fleet.api.route("hog", "http", memory=800, timeout=600, **fields), content=b"600")
        assert until(lambda: fleet.api.record(hog)["status"] == "running")  # its runner takes nothing more
        with _no_records(fleet.folder / "api" / "fn.db"):
            accepting = pool.submit(runner.http.post, path, content=b"0")
            assert until(lambda: redis.hlen("/diedhearth:calls") == 2)
            between.deaf = True
            kill(fleet.api)
        between.target = _address(fleet.start_api().url)
        between.deaf = False
        answer = accepting.result()
        assert redis.hlen("/diedhearth:calls") == 2
        for process in leaves_below(runner.process.pid):  # the hog's
            os.kill(process, signal.SIGKILL)
        assert fleet.api.ended(answer)["status"] == "success"
        assert until(lambda: redis.hlen("/diedhearth:calls") == 0)
        assert witness.executions == {answer.headers["fn_call_id"]: 1, hog.headers["fn_call_id"]: 1}


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


@contextlib.contextmanager
def _no_records(file: Path) -> Iterator[None]:
    """Nobody else writes to this database."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.close()


def _listed(fleet: Fleet) -> set[str]:
    ids: set[str] = set()
    cursor = ""
    while True:
        page = fleet.api.http.get("/v1/apps/e2e/calls", params={"per_page": 100, "cursor": cursor}).json()
        listed = [call["id"] for call in page["calls"]]
        assert len(ids.union(listed)) == len(ids) + len(listed)
        ids.update(listed)
        cursor = page["next_cursor"]
        if not cursor:
            return ids
