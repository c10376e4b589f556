"""Fns as functions of the agent: what their containers are, and what makes another one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from tests.support.agent import bench

from hearth.access.base import NO_FNS
from hearth.models.annotations import CONCURRENCY_KEY
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnInvalidConcurrency, FnInvalidMemory
from hearth.models.function import ASYNC, Amount, FunctionSpec
from hearth.models.route import RouteLimits
from hearth.models.secret import NO_SECRETS
from hearth.server.api_v2.functions import FnFunctions, compile_fn

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
APP = App(name="app", id="A", config={"A": "app", "B": "app", "FN_TYPE": "mine", "FN_FN_ID": "mine"})
FN = Fn(id="F", name="f", app_id="A", image="i", memory=64, timeout=7, idle_timeout=9, config={"B": "fn"})
LIMITS = RouteLimits()


def compiled(app: dict[str, Any] | None = None, is_sync: bool = True, **fn: Any) -> FunctionSpec:
    return compile_fn(
        msgspec.structs.replace(APP, **(app or {})), msgspec.structs.replace(FN, **fn), LIMITS, is_sync=is_sync
    )


def test_a_fn_is_a_function() -> None:
    spec = compiled()
    assert (spec.ref.id, spec.ref.app_id, spec.ref.labels, spec.ref.is_fn) == ("F", "A", ("app", "f"), True)
    assert (spec.image, spec.contract, spec.amount) == ("i", "http-stream", Amount(64, 0))
    assert (spec.timeout_s, spec.idle_timeout_s, spec.is_sync) == (7, 9, True)
    assert spec.environment == {
        "A": "app",
        "B": "fn",
        "FN_FORMAT": "http-stream",
        "FN_MEMORY": "64",
        "FN_TYPE": "sync",
        "FN_APP_ID": "A",
        "FN_APP_NAME": "app",
        "FN_FN_ID": "F",
        "FN_FN_NAME": "f",
        "FN_CONCURRENCY": "1",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"B": "other"}},
        {"annotations": {"k": "1"}},
        {"app": {"annotations": {"k": "1"}}},
        {"app": {"config": {}}},
        {"app": {"syslog_url": "tcp://x:1"}},
        {"image": "other"},
        {"id": "other"},
        {"is_sync": False},
    ],
)
def test_what_shapes_containers_makes_another_version(change: dict[str, Any]) -> None:
    assert compiled(**change).hot_key != compiled().hot_key


def test_what_does_not_shape_containers_makes_none() -> None:
    later: dict[str, Any] = {"updated_at": NOW, "shape": "GENERIC_ARM"}
    assert compiled(app={"updated_at": NOW}, **later).hot_key == compiled().hot_key
    covered = compiled(app={"annotations": {"k": "1"}}, annotations={"k": "2"})
    assert covered.hot_key == compiled(annotations={"k": "2"}).hot_key


def test_a_stored_fn_beyond_the_limits_of_the_node_is_refused() -> None:
    with pytest.raises(FnInvalidMemory):
        compile_fn(APP, FN, RouteLimits(memory_mib=63))


async def test_an_accepted_call_runs_the_version_that_it_was_accepted_for() -> None:
    detached = compiled(is_sync=False)
    call = Call.of(detached, "1", NOW, method="POST", url="http://h/invoke/F", headers={})
    assert (call.type, call.path, call.app_name) == (ASYNC, "f", "app")
    async with bench() as made:
        functions = FnFunctions(made.agent.pool, NO_FNS)
        spec = await functions.of_call(call)
    assert (spec.hot_key, spec.ref, spec.secrets) == (detached.hot_key, detached.ref, NO_SECRETS)


@pytest.mark.parametrize("text", ["0", "-1", "1001", "1.5", '"8"', "[8]", "1e1", "12345"])
def test_calls_at_once_are_a_number_within_its_limits(text: str) -> None:
    with pytest.raises(FnInvalidConcurrency, match="from 1 to 1000"):
        compiled(annotations={CONCURRENCY_KEY: text})


async def test_an_annotation_says_how_many_calls_a_container_runs_at_once() -> None:
    spec = compiled(annotations={CONCURRENCY_KEY: "8"}, config={"FN_CONCURRENCY": "9"})
    assert (spec.concurrency, spec.environment["FN_CONCURRENCY"]) == (8, "8")
    assert compiled().concurrency == 1
    detached = compiled(annotations={CONCURRENCY_KEY: "8"}, is_sync=False)
    async with bench() as made:
        call = Call.of(detached, "1", NOW, method="POST", url="http://h/invoke/F", headers={})
        assert (await FnFunctions(made.agent.pool, NO_FNS).of_call(call)).hot_key == detached.hot_key
