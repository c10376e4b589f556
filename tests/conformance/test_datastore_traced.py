"""A traced datastore does what the one behind it does, and says how long it took."""

from __future__ import annotations

import inspect
from pathlib import Path

from hearth.datastore.base import AppFilter, CallFilter, Datastore
from hearth.datastore.sql import open_datastore
from hearth.datastore.traced import TracedDatastore
from hearth.models.app import App
from hearth.models.call import Call
from hearth.telemetry import metrics

CALL = Call(id="1", app_name="app", path="/")


def count(name: str) -> int:
    return metrics.histogram(f"fn_span_{name}_duration_seconds").count()


async def test_each_operation_is_a_span_of_its_name(tmp_path: Path) -> None:
    store = TracedDatastore(await open_datastore(f"sqlite3://{tmp_path}/fn.db"))
    for names, act in [
        ("ds_insert_app", lambda: store.insert_app(App(name="app"))),
        ("ds_get_app", lambda: store.get_app("app")),
        ("ds_get_apps", lambda: store.get_apps(AppFilter())),
        ("ds_insert_call", lambda: store.put_calls([(CALL, None)])),
        ("ds_insert_call ds_insert_log", lambda: store.put_calls([(CALL, b"log")])),
        ("ds_update_call", lambda: store.update_call(CALL, CALL)),
        ("ds_get_call", lambda: store.get_call("app", "1")),
        ("ds_get_calls", lambda: store.get_calls(CallFilter(app_name="app"))),
        ("ds_get_log", lambda: store.get_log("app", "1")),
        ("ds_remove_app", lambda: store.remove_app("app")),
    ]:
        before = {name: count(name) for name in (*names.split(), "ds_insert_log")}
        await act()
        expected = {name: number + (name in names.split()) for name, number in before.items()}
        assert {name: count(name) for name in before} == expected, names
    await store.close()


def test_no_operation_is_left_out() -> None:
    own = {name for name, _ in inspect.getmembers(TracedDatastore, inspect.isfunction)}
    assert own >= Datastore.__abstractmethods__
