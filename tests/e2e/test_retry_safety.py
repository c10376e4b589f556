"""Wherever a connection between runner and API node breaks: a call runs once, and has one record."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.support.faulty_proxy import Cut, FaultyProxy, faulty_proxy
from tests.support.fleet import Fleet, running_fleet
from tests.support.node import WITNESS, build_bundle
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
    address = urlsplit(fleet.api.url)
    with faulty_proxy((str(address.hostname), int(address.port or 0))) as between:
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
