"""Series of metrics go with the apps and routes that they are about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.agent import bench
from tests.support.scrape import samples
from tests.support.virtual_time import VirtualClock, run

from hearth.access.base import NO_FNS
from hearth.models.app import App
from hearth.models.errors import ApiNodeAway, AppsNotFound
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound
from hearth.nodes.stale_series import StaleSeries
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry

#: More than until idle containers are gone, and than it takes to look at everything.
WHILE_S = 200


def paths_of(metrics: Metrics, app: str) -> set[str]:
    return {path for _, name, path in samples(b"".join(metrics.exposition()).decode()) if name == app}


def test_series_of_a_deleted_route_go_and_those_of_others_stay() -> None:
    async def scenario() -> None:
        async with (
            bench() as on,
            StaleSeries(on.records, NO_FNS, on.clock, on.agent.telemetry.metrics, on.functions.forget),
        ):
            metrics = on.agent.telemetry.metrics
            for path in ("/deleted", "/kept"):
                await on.ask(on.function(path))
            long = on.start(on.function("/deleted", timeout=120), sleep=110)
            await asyncio.sleep(1)
            del on.records.routes["/deleted"]
            await on.functions.refresh("a", "/deleted")
            await asyncio.sleep(100)
            assert "/deleted" in paths_of(metrics, "a"), "a call of it still runs"
            await long
            await asyncio.sleep(WHILE_S)
            assert paths_of(metrics, "a") & {"/deleted", "/kept"} == {"/kept"}
            await on.ask(on.function("/deleted"))
            told = samples(b"".join(metrics.exposition()).decode())
            assert (told["fn_calls", "a", "/deleted"], told["fn_completed", "a", "/deleted"]) == (1, 1)
            assert told["fn_span_agent_submit_duration_seconds_count", "a", "/deleted"] == 1
            assert told["fn_calls", "a", "/kept"] >= 1

    run(scenario())


@pytest.mark.parametrize(("error", "left"), [(AppsNotFound, set()), (ApiNodeAway, {"", "/p"})])
def test_an_app_that_is_gone_is_told_from_one_that_cannot_be_looked_up(error: type[Exception], left: set[str]) -> None:
    class Source:
        async def get_app(self, name: str) -> object:
            raise error

    telemetry = Telemetry()
    span = telemetry.tracing.span
    with span("serve_http", "gone-app", "/p"), span("agent_submit_app", "gone-app"):
        pass

    async def scenario() -> None:
        await StaleSeries(Source(), NO_FNS, VirtualClock(), telemetry.metrics).look()  # type: ignore[arg-type]

    run(scenario())
    assert paths_of(telemetry.metrics, "gone-app") == left


@pytest.mark.parametrize(("name", "left"), [("kept", {"", "kept"}), ("deleted", {""})])
def test_series_of_a_deleted_fn_go(name: str, left: set[str]) -> None:
    class Source:
        async def get_app(self, name: str) -> App:
            return App(name=name, id="A")

        async def get_fn_named(self, app_id: str, name: str) -> Fn:
            if (app_id, name) != ("A", "kept"):
                raise FnNotFound
            return Fn(id="F", name=name, app_id=app_id)

    telemetry = Telemetry()
    with telemetry.tracing.span("serve_http", "of-fns", name), telemetry.tracing.span("agent_submit_app", "of-fns"):
        pass

    async def scenario() -> None:
        source: Any = Source()
        await StaleSeries(source, source, VirtualClock(), telemetry.metrics).look()

    run(scenario())
    assert paths_of(telemetry.metrics, "of-fns") == left
