"""Fns and triggers: what every database keeps its word on."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest

from hearth.models import fn_errors
from hearth.models.app import App, validate_app
from hearth.models.errors import ApiError, AppsNotFound
from hearth.models.fn import Fn, FnPatch, validate_fn
from hearth.models.patch import AppPatch
from hearth.models.trigger import Trigger, TriggerPatch, validate_trigger
from hearth.stores.datastore import Datastore
from hearth.stores.fns.base import FnFilter, TriggerFilter
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=1)
APP = App(
    name="Größe",
    id="A",
    config={"A": "ü"},
    annotations={"k": '{"b":1,"a":[1.50,"x y"]}'},
    syslog_url="tcp://logs:514",
    shape="GENERIC_ARM",
    created_at=NOW,
    updated_at=NOW,
)
FN = Fn(
    id="F",
    name="fn",
    app_id="A",
    image="image:1",
    memory=64,
    timeout=7,
    idle_timeout=9,
    config={"K": "ü=\n"},
    annotations={"big": "123456789012345678901234567890"},
    created_at=NOW,
    updated_at=NOW,
)
TRIGGER = Trigger(
    id="T", name="t", app_id="A", fn_id="F", source="/a b", annotations={"x": "true"}, created_at=NOW, updated_at=NOW
)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Datastore]:
    opened = await open_datastore(database)
    await opened.insert_app(APP)
    yield opened
    await opened.close()


def fn(fn_id: str, name: str, app_id: str = "A") -> Fn:
    return msgspec.structs.replace(FN, id=fn_id, name=name, app_id=app_id)


def trigger(trigger_id: str, name: str, source: str, fn_id: str = "F") -> Trigger:
    return msgspec.structs.replace(TRIGGER, id=trigger_id, name=name, source=source, fn_id=fn_id)


async def test_what_was_stored_comes_back(store: Datastore) -> None:
    assert await store.get_app_by_id("A") == APP
    assert await store.get_app(APP.name) == APP
    stored = await store.insert_fn(FN)
    assert stored == msgspec.structs.replace(FN, shape="GENERIC_ARM")
    assert await store.get_fn("F") == stored
    assert await store.insert_trigger(TRIGGER) == TRIGGER
    assert await store.get_trigger("T") == TRIGGER
    assert await store.get_trigger_by_source("A", "http", "/a b") == TRIGGER


async def test_fns_come_by_name_and_page_by_page(store: Datastore) -> None:
    await store.insert_app(App(name="other", id="B"))
    for number, name in enumerate(("b", "B", "a")):
        await store.insert_fn(fn(str(number), name))
    await store.insert_fn(fn("other", "a", "B"))

    async def names(**which: object) -> list[str]:
        return [found.name for found in await store.get_fns(FnFilter(app_id="A", **which))]  # type: ignore[arg-type]

    assert await names() == ["B", "a", "b"]
    assert await names(cursor="B", per_page=1) == ["a"]
    assert await names(name="b") == ["b"]
    assert await names(name="b", cursor="b") == []
    assert await store.get_fns(FnFilter(app_id="nobody")) == []


async def test_triggers_of_one_name_are_not_skipped_at_the_border_of_a_page(store: Datastore) -> None:
    for fn_id in ("F1", "F2", "F3"):
        await store.insert_fn(fn(fn_id, fn_id))
        await store.insert_trigger(trigger(f"T{fn_id}", "same", f"/{fn_id}", fn_id))
    await store.insert_trigger(trigger("last", "z", "/z", "F1"))
    first = await store.get_triggers(TriggerFilter(app_id="A", per_page=2))
    rest = await store.get_triggers(TriggerFilter(app_id="A", after=(first[-1].name, first[-1].id)))
    assert [one.id for one in (*first, *rest)] == ["TF1", "TF2", "TF3", "last"]
    assert [one.id for one in await store.get_triggers(TriggerFilter(app_id="A", fn_id="F1"))] == ["TF1", "last"]
    assert [one.id for one in await store.get_triggers(TriggerFilter(app_id="A", name="z"))] == ["last"]
    assert await store.get_triggers(TriggerFilter(app_id="A", fn_id="F2", name="z")) == []


async def test_each_refusal_has_its_error(store: Datastore) -> None:
    await store.insert_fn(FN)
    await store.insert_fn(fn("F2", "second"))
    await store.insert_trigger(TRIGGER)
    await store.insert_trigger(trigger("T2", "t2", "/2"))
    await store.insert_app(App(name="other", id="B"))
    await store.insert_fn(fn("FB", "foreign", "B"))
    for error, attempt in [
        (AppsNotFound, store.get_app_by_id("x")),
        (AppsNotFound, store.insert_fn(fn("x", "x", "x"))),
        (fn_errors.FnAlreadyExists, store.insert_fn(fn("x", "fn"))),
        (fn_errors.FnNotFound, store.get_fn("x")),
        (fn_errors.FnNotFound, store.update_fn("x", FnPatch(), NOW, validate_fn)),
        (fn_errors.FnNotFound, store.remove_fn("x")),
        (fn_errors.FnInvalidTimeout, store.update_fn("F", FnPatch(timeout=301, image="new"), NOW, validate_fn)),
        (fn_errors.TriggerNotFound, store.get_trigger("x")),
        (fn_errors.TriggerNotFound, store.get_trigger_by_source("A", "http", "/a")),
        (fn_errors.TriggerNotFound, store.get_trigger_by_source("B", "http", "/a b")),
        (fn_errors.TriggerNotFound, store.update_trigger("x", TriggerPatch(), NOW, validate_trigger)),
        (fn_errors.TriggerNotFound, store.remove_trigger("x")),
        (AppsNotFound, store.insert_trigger(msgspec.structs.replace(TRIGGER, id="x", app_id="x"))),
        (fn_errors.FnNotFound, store.insert_trigger(trigger("x", "x", "/x", "x"))),
        (fn_errors.TriggerForeignFn, store.insert_trigger(trigger("x", "x", "/x", "FB"))),
        (fn_errors.TriggerSourceTaken, store.insert_trigger(trigger("x", "x", "/a b"))),
        (fn_errors.TriggerAlreadyExists, store.insert_trigger(trigger("x", "t", "/x"))),
        (fn_errors.TriggerSourceTaken, store.update_trigger("T2", TriggerPatch(source="/a b"), NOW, validate_trigger)),
        (fn_errors.TriggerAlreadyExists, store.update_trigger("T2", TriggerPatch(name="t"), NOW, validate_trigger)),
        (fn_errors.TriggerForeignFn, store.update_trigger("T2", TriggerPatch(fn_id="FB"), NOW, validate_trigger)),
        (AppsNotFound, store.update_app(APP.name, AppPatch(), NOW, app_id="x")),
        (AppsNotFound, store.remove_app(APP.name, app_id="x")),
    ]:
        with pytest.raises(error):
            await attempt
    assert (await store.get_fn("F")).image == "image:1"
    assert await store.get_trigger("T2") == trigger("T2", "t2", "/2")


async def test_updates_merge_and_move_the_time_only_for_a_change(store: Datastore) -> None:
    stored = await store.insert_fn(FN)
    assert await store.update_fn("F", FnPatch(image="image:1"), LATER, validate_fn) == stored
    patch = FnPatch(name="ignored", memory=256, config={"K": "", "N": "1"}, annotations={"big": '""', "new": "[1]"})
    changed = await store.update_fn("F", patch, LATER, validate_fn)
    assert (changed.name, changed.memory, changed.config) == ("fn", 256, {"N": "1"})
    assert (changed.annotations, changed.updated_at) == ({"new": "[1]"}, LATER)
    assert await store.get_fn("F") == changed
    await store.insert_trigger(TRIGGER)
    moved = await store.update_trigger("T", TriggerPatch(source="/new", type="x", app_id="x"), LATER, validate_trigger)
    assert moved == msgspec.structs.replace(TRIGGER, source="/new", updated_at=LATER)
    assert await store.get_trigger_by_source("A", "http", "/new") == moved


async def test_an_apps_update_is_checked_and_touches_it_if_a_syslog_url_is_given(store: Datastore) -> None:
    with pytest.raises(fn_errors.InvalidSyslogUrl):
        await store.update_app(APP.name, AppPatch(syslog_url="http://x"), LATER, app_id="A", check=validate_app)
    assert await store.get_app(APP.name) == APP
    same = await store.update_app(APP.name, AppPatch(syslog_url=APP.syslog_url), LATER, app_id="A")
    assert same == msgspec.structs.replace(APP, updated_at=LATER)
    bare = await store.update_app(APP.name, AppPatch(syslog_url="", annotations={"k": "null"}), LATER, app_id="A")
    assert (bare.syslog_url, bare.annotations) == ("", {})
    assert await store.get_app_by_id("A") == bare


async def test_a_removed_fn_takes_its_triggers(store: Datastore) -> None:
    await store.insert_fn(FN)
    await store.insert_fn(fn("F2", "second"))
    await store.insert_trigger(TRIGGER)
    await store.insert_trigger(trigger("T2", "t2", "/2", "F2"))
    await store.remove_fn("F")
    assert [one.id for one in await store.get_triggers(TriggerFilter(app_id="A"))] == ["T2"]
    assert [one.id for one in await store.get_fns(FnFilter(app_id="A"))] == ["F2"]
    await store.remove_trigger("T2")
    assert await store.get_triggers(TriggerFilter(app_id="A")) == []


async def test_a_removed_app_takes_its_fns_and_triggers_and_those_of_no_other(store: Datastore) -> None:
    await store.insert_app(App(name="other", id="B"))
    await store.insert_fn(FN)
    await store.insert_fn(fn("FB", "fn", "B"))
    await store.insert_trigger(TRIGGER)
    await store.remove_app(APP.name)
    for attempt in (store.get_fn("F"), store.get_trigger("T"), store.get_app_by_id("A")):
        with pytest.raises(ApiError):
            await attempt
    assert (await store.get_fn("FB")).app_id == "B"


async def test_of_many_at_once_one_gets_the_name_and_one_the_source(store: Datastore) -> None:
    async def outcome(number: int) -> str:
        try:
            await store.insert_fn(fn(f"f{number}", "wanted"))
        except fn_errors.FnAlreadyExists:
            return "refused"
        return "stored"

    assert sorted(await asyncio.gather(*[outcome(number) for number in range(8)])) == ["refused"] * 7 + ["stored"]
    await store.insert_fn(FN)

    async def outcome_of_trigger(number: int) -> str:
        try:
            await store.insert_trigger(trigger(f"t{number}", f"name{number}", "/wanted"))
        except fn_errors.TriggerSourceTaken:
            return "refused"
        return "stored"

    outcomes = await asyncio.gather(*[outcome_of_trigger(number) for number in range(8)])
    assert sorted(outcomes) == ["refused"] * 7 + ["stored"]


async def test_concurrent_changes_of_one_fn_are_all_kept(store: Datastore) -> None:
    await store.insert_fn(FN)
    changes = [store.update_fn("F", FnPatch(config={f"K{n}": "v"}), NOW, validate_fn) for n in range(20)]
    await asyncio.gather(*changes)
    assert len((await store.get_fn("F")).config) == 21


async def test_nothing_is_stored_into_an_app_that_is_removed_meanwhile(store: Datastore) -> None:
    await asyncio.gather(
        store.remove_app(APP.name), *[store.insert_fn(fn(str(n), f"f{n}")) for n in range(8)], return_exceptions=True
    )
    assert await store.get_fns(FnFilter(app_id="A")) == []
