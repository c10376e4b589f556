"""Each operation of the datastore is a span, which tells how long it took."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from tests.support.scrape import Watch

from hearth.models import idempotency
from hearth.models.app import App
from hearth.models.audit import AuditEvent
from hearth.models.call import Call
from hearth.models.fn import Fn, FnPatch
from hearth.models.image import Pin
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.principal import Role
from hearth.models.route import Route
from hearth.models.schedule import Definition, Firing, FiringState, Schedule
from hearth.models.secret import Secret
from hearth.models.token import Token
from hearth.models.trigger import Trigger, TriggerPatch
from hearth.models.version import Version
from hearth.stores.audit.base import AuditFilter
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import AppFilter, RouteFilter
from hearth.stores.fns.base import FnFilter, TriggerFilter
from hearth.stores.records.base import CallFilter, DeadLetterFilter
from hearth.stores.schedules.base import Claim
from hearth.stores.sql import open_datastore
from hearth.stores.tokens.base import TokenFilter
from hearth.telemetry.node import Telemetry

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
CALL = Call(id="1", app_name="app", path="/")
DEAD = Call(id="2", app_name="app", path="/", type="async", status="error", dead=True)
ROUTE = Route(app_name="app", path="/", image="i")
SECRET = Secret(app_name="app", app_id="", name="S", id="1", version=1)
TOKEN = Token(id="1", name="t", role=Role.VIEWER, digest="0" * 64, created_at=NOW)
FN = Fn(id="F", name="f", app_id="A", image="i")
TRIGGER = Trigger(id="T", name="t", app_id="A", fn_id="F")
VERSION = Version(id="1", app_name="app", function="/r", image="f:1", created_at=NOW)
SCHEDULE = Schedule(app_name="app", app_id="A", name="s", id="S", definition=Definition(function="/"), anchor=NOW)
FIRING = Firing(
    schedule_id="S", due=NOW, app_name="app", call_id="C", state=FiringState.CLAIMED, claimed_at=NOW, error=""
)
KEY = idempotency.Claim(id="1" * 64, app_name="app", call_id="1", fingerprint="1" * 64, is_sync=True, ttl_s=1)
EVENT = AuditEvent(
    id="1", created_at=NOW, principal="admin", action="apps:write", resource="POST /v1/apps", status=200, address=""
)


async def test_each_operation_is_a_span_of_its_name(tmp_path: Path) -> None:
    telemetry = Telemetry()
    watch = Watch(telemetry.metrics)

    def count(name: str) -> float:
        return watch(f"fn_span_{name}_duration_seconds_count")

    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db", telemetry=telemetry)
    table = [
        ("ds_insert_app", "insert_app", (App(name="app", id="A"),)),
        ("ds_get_app", "get_app", ("app",)),
        ("ds_get_apps", "get_apps", (AppFilter(),)),
        ("ds_update_app", "update_app", ("app", AppPatch(config={"A": "b"}), NOW)),
        ("ds_insert_route", "insert_route", (ROUTE,)),
        ("ds_get_route", "get_route", ("app", "/")),
        ("ds_get_routes_by_app", "get_routes", ("app", RouteFilter())),
        ("ds_get_ready_routes", "get_ready_routes", (1,)),
        ("ds_update_route", "update_route", ("app", "/", RoutePatch(memory=64), NOW, lambda route: None)),
        ("ds_remove_route", "remove_route", ("app", "/")),
        ("ds_insert_call", "add_calls", ([CALL],)),
        ("ds_update_call", "start_calls", ([CALL],)),
        ("ds_update_call", "retry_calls", ([(CALL, None)],)),
        ("ds_insert_call", "put_calls", ([(CALL, None)],)),
        ("ds_insert_call ds_insert_log", "put_calls", ([(CALL, b"log")],)),
        ("ds_update_call", "update_call", (CALL, CALL)),
        ("ds_update_call", "cancel_call", ("app", "1", lambda call: call)),
        ("ds_insert_call", "put_calls", ([(DEAD, None)],)),
        ("ds_get_call", "get_call", ("app", "1")),
        ("ds_get_calls", "get_calls", (CallFilter(app_name="app"),)),
        ("ds_get_log", "get_log", ("app", "1")),
        ("ds_get_result", "get_result", ("app", "1")),
        ("ds_remove_calls", "remove_results", (NOW, 1)),
        ("ds_remove_calls", "remove_calls", (NOW, 1)),
        ("ds_remove_calls", "remove_logs", (NOW, 1)),
        ("ds_get_calls", "cancelled", (["1"],)),
        ("ds_get_dead_letters", "get_dead_letters", (DeadLetterFilter(app_name="app", per_page=1),)),
        ("ds_get_dead_letters", "get_dead_letter", ("app", "2")),
        ("ds_get_dead_letters", "count_dead_letters", ()),
        ("ds_update_dead_letter", "claim_dead_letter", ("app", "2", "3")),
        ("ds_remove_dead_letters", "remove_dead_letter", ("app", "2")),
        ("ds_remove_dead_letters", "remove_dead_letters", (NOW, 1)),
        ("ds_put_schedule", "put_schedule", ("app", "s", lambda app_id, stored: SCHEDULE)),
        ("ds_get_schedule", "get_schedule", ("app", "s")),
        ("ds_get_schedules", "list_schedules", ("app",)),
        ("ds_get_schedules_due", "next_due", ()),
        ("ds_get_schedules_due", "due_schedules", (NOW, 1)),
        ("ds_get_schedules_due", "schedules_ahead", (NOW, 1)),
        ("ds_claim_firings", "claim_firings", ([Claim(SCHEDULE, (FIRING,), NOW, NOW)],)),
        ("ds_get_firings", "stale_firings", (NOW, 1)),
        ("ds_claim_firings", "take_over", (FIRING, NOW)),
        ("ds_settle_firings", "settle_firings", ([FIRING],)),
        ("ds_remove_firings", "remove_firings", (NOW, 1)),
        ("ds_remove_schedule", "remove_schedule", ("app", "s")),
        ("ds_claim_key", "claim_key", (KEY, NOW)),
        ("ds_get_keys", "key_bytes", ("app", 1)),
        ("ds_update_key", "renew_keys", ([(KEY.id, "1")], NOW)),
        ("ds_update_key", "end_key", (idempotency.KeyEnd(id=KEY.id, call_id="1", ttl_s=1), NOW)),
        ("ds_remove_keys", "remove_keys", (NOW, 1)),
        ("ds_insert_secret", "put_secret", ("app", "S", NOW, lambda secret: secret)),
        ("ds_get_secrets", "list_secrets", ("app",)),
        ("ds_get_secret_values", "find_secrets", ("app", "", ["S"])),
        ("ds_get_secret_keys", "secret_keys", ()),
        ("ds_get_secrets_of_key", "secrets_of_key", ("", ("", ""), 1)),
        ("ds_update_secret", "reseal_secret", (SECRET, SECRET)),
        ("ds_remove_secret", "remove_secret", ("app", "S")),
        ("ds_insert_fn", "insert_fn", (FN,)),
        ("ds_get_app", "get_app_by_id", ("A",)),
        ("ds_get_fn", "get_fn", ("F",)),
        ("ds_get_fns", "get_fns", (FnFilter(app_id="A"),)),
        ("ds_get_ready_fns", "get_ready_fns", (1,)),
        ("ds_update_fn", "update_fn", ("F", FnPatch(memory=64), NOW, lambda fn: None)),
        ("ds_insert_trigger", "insert_trigger", (TRIGGER,)),
        ("ds_get_trigger", "get_trigger", ("T",)),
        ("ds_get_trigger_by_source", "get_trigger_by_source", ("A", "http", "/")),
        ("ds_get_triggers", "get_triggers", (TriggerFilter(app_id="A"),)),
        ("ds_update_trigger", "update_trigger", ("T", TriggerPatch(source="/x"), NOW, lambda trigger: None)),
        ("ds_remove_trigger", "remove_trigger", ("T",)),
        ("ds_remove_fn", "remove_fn", ("F",)),
        ("ds_remove_app", "remove_app", ("app",)),
        ("ds_insert_token", "insert_token", (TOKEN,)),
        ("ds_get_token", "find_token", (TOKEN.digest,)),
        ("ds_get_token", "get_token", ("1",)),
        ("ds_get_tokens", "get_tokens", (TokenFilter(),)),
        ("ds_update_token", "note_token_use", ("1", NOW)),
        ("ds_remove_token", "remove_token", ("1",)),
        ("ds_insert_version", "add_version", (VERSION,)),
        ("ds_get_versions", "get_versions", ("app", "/r")),
        ("ds_get_version_images", "get_version_images", ()),
        ("ds_pin", "pin", (Pin("app", "/r", "i", "d"),)),
        ("ds_get_unpinned", "get_unpinned", ()),
        ("ds_insert_audit", "add_events", ([EVENT],)),
        ("ds_get_audit", "get_events", (AuditFilter(),)),
        ("ds_remove_audit", "remove_events", (NOW, 1)),
    ]
    spans = {name for names, _, _ in table for name in names.split()}
    for names, operation, arguments in table:
        before = {name: count(name) for name in spans}
        await getattr(store, operation)(*arguments)
        expected = {name: number + (name in names.split()) for name, number in before.items()}
        assert {name: count(name) for name in before} == expected, operation
    await store.close()
    assert {operation for _, operation, _ in table} >= Datastore.__abstractmethods__ - {"close"}
