"""Tokens, and the one table of who may do what."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from hearth import settings
from hearth.authorize import admin_token
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.rules import OPEN, RULES, Action, authorize, entry_point, is_allowed
from hearth.authorize.tokens import Tokens, digest, is_token, new_token
from hearth.models.errors import (
    AppsNotFound,
    Forbidden,
    RunnerUnknown,
    StartUpError,
    TooManyWrongTokens,
    Unauthenticated,
)
from hearth.models.principal import ADMIN, ANONYMOUS, LOCAL, RUNNER, Principal, Role


@pytest.mark.parametrize(
    ("method", "path", "action", "app"),
    [
        ("GET", "/", Action.PROBE, ""),
        ("GET", "/version", Action.PROBE, ""),
        ("GET", "/version/", Action.UNKNOWN, ""),
        ("POST", "/version", Action.UNKNOWN, ""),
        ("GET", "//version", Action.UNKNOWN, ""),
        ("TRACE", "/r/a/f", Action.CALL, ""),
        ("GET", "/r/", Action.CALL, ""),
        ("GET", "/r", Action.UNKNOWN, ""),
        ("GET", "/v1/apps", Action.APPS_READ, ""),
        ("GET", "/v1/apps/a", Action.APPS_READ, "a"),
        ("PATCH", "/v1/apps/a", Action.APPS_WRITE, "a"),
        ("GET", "/v1/apps/a/routes/b/c", Action.ROUTES_READ, "a"),
        ("GET", "/v1/apps/a/routes//b", Action.ROUTES_READ, "a"),
        ("PUT", "/v1/apps/a/routes/", Action.ROUTES_WRITE, "a"),
        ("POST", "/v1/apps/a/routes/b", Action.UNKNOWN, ""),
        ("GET", "/v1/apps/a/calls/x/log", Action.CALLS_READ, "a"),
        ("POST", "/v1/apps/a/calls/x/cancel", Action.CALLS_WRITE, "a"),
        ("GET", "/v1/apps/a/secrets", Action.SECRETS_READ, "a"),
        ("PUT", "/v1/apps/a/secrets/S", Action.SECRETS_WRITE, "a"),
        ("DELETE", "/v1/apps/a/secrets/S", Action.SECRETS_WRITE, "a"),
        ("GET", "/v1/apps/a/secrets/S", Action.UNKNOWN, ""),
        ("GET", "/v1/apps/a/registries", Action.SECRETS_READ, "a"),
        ("PUT", "/v1/apps/a/registries/r:5000", Action.SECRETS_WRITE, "a"),
        ("DELETE", "/v1/apps/a/registries/r", Action.SECRETS_WRITE, "a"),
        ("GET", "/v1/apps/a/registries/r", Action.UNKNOWN, ""),
        ("PUT", "/v2/apps/a", Action.APPS_WRITE, ""),
        ("GET", "/v2/", Action.IMAGES_READ, ""),
        ("HEAD", "/v2/a/f/blobs/d", Action.IMAGES_READ, "a"),
        ("PUT", "/v2/a/f/manifests/1", Action.IMAGES_WRITE, "a"),
        ("POST", "/v2/", Action.UNKNOWN, ""),
        ("GET", "/v2/none", Action.UNKNOWN, ""),
        ("PATCH", "/v2/apps/a", Action.UNKNOWN, ""),
        ("POST", "/v2/fns", Action.FNS_WRITE, ""),
        ("GET", "/v2/fns/f/calls/c/log", Action.CALLS_READ, ""),
        ("DELETE", "/v2/triggers/t", Action.FNS_WRITE, ""),
        ("GET", "/v2/runner/apps/a/triggerBySource/http//s/t", Action.FNS_READ, ""),
        ("PUT", "/invoke/f", Action.CALL, ""),
        ("GET", "/t/a/b/c", Action.CALL, ""),
        ("GET", "/ui/", Action.DASHBOARD_OPEN, ""),
        ("GET", "/ui/static/pages/app.js", Action.DASHBOARD_OPEN, ""),
        ("POST", "/ui/login", Action.DASHBOARD_OPEN, ""),
        ("GET", "/ui/login", Action.UNKNOWN, ""),
        ("GET", "/ui/data/me", Action.DASHBOARD_READ, ""),
        ("GET", "/ui/data/calls", Action.CALLS_READ, ""),
        ("POST", "/ui/data/me", Action.UNKNOWN, ""),
        ("PUT", "/ui/call/r/a/f", Action.DASHBOARD_CALL, ""),
        ("GET", "/v1/runner/async", Action.RUNNER_WORK, ""),
        ("POST", "/v1/runner/anything/at/all", Action.RUNNER_WORK, ""),
        ("GET", "/v1/RUNNER/async", Action.UNKNOWN, ""),
        ("GET", "/nowhere", Action.UNKNOWN, ""),
        ("GET", "", Action.UNKNOWN, ""),
    ],
)
def test_an_entry_point_is_one_action(method: str, path: str, action: Action, app: str) -> None:
    assert entry_point(method, path) == (action, app)


def test_what_has_no_rule_is_for_administrators_only() -> None:
    authorize(ADMIN, Action.UNKNOWN)
    for principal, error in ((ANONYMOUS, Unauthenticated), (RUNNER, Forbidden)):
        with pytest.raises(error):
            authorize(principal, Action.UNKNOWN)


#: The actions of each role besides the open ones.
GRANTED = {
    Role.ANONYMOUS: "",
    Role.DEPLOYER: "apps:read apps:write calls:write config:read dashboard:call dashboard:read dead_letters:read "
    "docs:read fns:read fns:write functions:invoke images:read images:write routes:read routes:write "
    "schedules:read schedules:write secrets:read secrets:write",
    Role.INVOKER: "calls:read dashboard:call dashboard:read docs:read functions:invoke",
    Role.VIEWER: "apps:read calls:read dashboard:read docs:read fns:read routes:read schedules:read secrets:read "
    "system:read",
    Role.RUNNER: "apps:read config:read fns:read routes:read runner:work",
}
#: Those of them that principals of some apps have, too, without naming an app.
WITHOUT_APP = {
    Role.DEPLOYER: "apps:read apps:write calls:write dashboard:call dashboard:read docs:read fns:read fns:write "
    "images:read",
    Role.INVOKER: "calls:read dashboard:call dashboard:read docs:read",
    Role.VIEWER: "apps:read calls:read dashboard:read docs:read fns:read",
    Role.ADMIN: "apps:read apps:write audit:read calls:read calls:write dashboard:call dashboard:read docs:read "
    "fns:read fns:write images:read tokens:read tokens:write",
}


@pytest.mark.parametrize("role", GRANTED)
def test_a_role_has_these_actions_and_no_others(role: Role) -> None:
    for resource in ("", "a"):
        allowed = {action for action in Action if is_allowed(Principal(role), action, resource)}
        assert allowed == OPEN | {Action(name) for name in GRANTED[role].split()}


def test_administrators_have_all_actions_but_those_of_runners() -> None:
    assert {action for action in Action if not is_allowed(ADMIN, action)} == {Action.RUNNER_WORK}


def test_a_program_of_this_machine_is_an_administrator_but_no_caller_with_a_token() -> None:
    """It may be a proxy that stands for strangers."""
    assert {action for action in Action if not is_allowed(LOCAL, action)} == {Action.RUNNER_WORK, Action.INVOKE}
    with pytest.raises(Unauthenticated):
        authorize(LOCAL, Action.INVOKE, "a")


@pytest.mark.parametrize("role", WITHOUT_APP)
def test_a_scope_ends_at_its_apps(role: Role) -> None:
    scoped, whole = Principal(role, frozenset({"a", "b"})), Principal(role)
    for action in set(Action) - OPEN - {Action.INVOKE}:
        assert is_allowed(scoped, action, "a") == is_allowed(whole, action, "a")
        with pytest.raises(AppsNotFound):  # whether it exists or not, and whatever the action
            authorize(scoped, action, "c")
    allowed = {action for action in Action if is_allowed(scoped, action)}
    assert allowed == OPEN | {Action(name) for name in WITHOUT_APP[role].split()}


def test_a_function_out_of_reach_is_refused_with_the_action_as_every_caller_sees_that_it_exists() -> None:
    caller = Principal(Role.INVOKER, frozenset({"a", "b"}))
    authorize(caller, Action.INVOKE, "b")
    with pytest.raises(Forbidden, match=r"role invoker does not have the action functions:invoke beyond a, b$"):
        authorize(caller, Action.INVOKE, "c")


def test_what_reaches_beyond_the_scope_is_named() -> None:
    with pytest.raises(Forbidden, match=r"role viewer does not have the action system:read beyond a, b$"):
        authorize(Principal(Role.VIEWER, frozenset({"a", "b"})), Action.SYSTEM_READ)


def test_runners_read_definitions_and_do_not_change_them() -> None:
    with pytest.raises(Forbidden, match=r"role runner does not have the action apps:write"):
        authorize(RUNNER, Action.APPS_WRITE, "a")


def test_only_runners_do_the_work_of_runners() -> None:
    for principal, error in (
        (ANONYMOUS, RunnerUnknown),
        (LOCAL, RunnerUnknown),
        (ADMIN, Forbidden),
    ):
        with pytest.raises(error):
            authorize(principal, Action.RUNNER_WORK)


def test_strangers_get_what_is_open() -> None:
    assert {action for action in Action if is_allowed(ANONYMOUS, action)} == OPEN
    assert {rule.action for rule in RULES} & OPEN == {Action.PROBE, Action.CALL, Action.DASHBOARD_OPEN}


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_random_and_carry_a_checksum() -> None:
    made = [new_token() for _ in range(100)]
    assert len(set(made)) == 100
    for token in made:
        assert token.startswith("hearth_")
        assert is_token(token)
        broken = token[:-1] + ("a" if token[-1] != "a" else "b")
        assert not is_token(broken)
        assert not is_token(token[:10] + ("a" if token[10] != "a" else "b") + token[11:])
    assert not is_token("hearth_")


def test_a_token_is_found_whole_and_exact_only() -> None:
    tokens = Tokens([(ADMIN, "secret-a"), (RUNNER, "secret-b"), (RUNNER, "")])
    assert (tokens.find(digest(b"secret-a")), tokens.find(digest(b"secret-b"))) == (ADMIN, RUNNER)
    for wrong in (b"", b"secret", b"secret-A", b"secret-a ", b"\xff"):
        assert tokens.find(digest(wrong)) is None
    assert "secret" not in repr(vars(tokens))
    assert not Tokens([(RUNNER, "")]).has(RUNNER)


def test_the_first_start_makes_a_token_that_only_its_owner_reads(tmp_path: Path) -> None:
    wanted = settings.load(data_dir=tmp_path / "data")
    token = admin_token.admin_token(wanted)
    file = tmp_path / "data" / admin_token.FILE
    assert is_token(token)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert admin_token.admin_token(wanted) == token == file.read_text().strip()
    assert [path.name for path in file.parent.iterdir()] == [admin_token.FILE], "nothing else is left"
    given = settings.load(data_dir=tmp_path / "other", admin_token="mine")
    assert admin_token.admin_token(given) == "mine"
    assert not (tmp_path / "other").exists(), "a token that is given is written nowhere"


def test_a_token_file_that_is_not_ours_keeps_a_node_from_starting(tmp_path: Path) -> None:
    wanted = settings.load(data_dir=tmp_path)
    file = tmp_path / admin_token.FILE
    file.write_text("hearth_short\n")
    file.chmod(0o600)
    with pytest.raises(StartUpError, match=r"contains no token; remove it"):
        admin_token.admin_token(wanted)
    file.write_text(new_token())
    file.chmod(0o640)
    with pytest.raises(StartUpError, match=r"other users may read it; remove it"):
        admin_token.admin_token(wanted)
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(StartUpError, match=r"is not a regular file; remove it"):
        admin_token.admin_token(wanted)


def test_a_token_that_another_user_knows_keeps_a_node_from_starting(tmp_path: Path) -> None:
    file = tmp_path / admin_token.FILE
    file.write_text(new_token())
    file.chmod(0o600)
    with pytest.raises(StartUpError, match=rf"belongs to user {os.geteuid()}, not to user 54321"):
        admin_token.read(file, 54321)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(StartUpError, match=r"not to user 54321 of the node; remove it, .* FN_ADMIN_TOKEN"):
        admin_token.read(link, 54321)
    assert admin_token.read(file, os.geteuid())


@pytest.mark.parametrize("name", ["FN_ADMIN_TOKEN", "FN_RUNNER_TOKEN"])
def test_a_token_that_fits_no_header_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "s3cret with blanks")
    with pytest.raises(StartUpError, match=rf"^{name}='\*\*\*': a token consists of printable ASCII") as refused:
        settings.load()
    assert "s3cret" not in str(refused.value)


# -- wrong tokens -----------------------------------------------------------------------------------------------------


def test_wrong_tokens_are_limited_for_each_address_and_for_a_while() -> None:
    clock = FakeClock()
    wrong = WrongTokens(clock)
    for _ in range(10):
        wrong.note("192.0.2.1")
    for _ in range(1000):
        with pytest.raises(TooManyWrongTokens) as refused:
            wrong.note("192.0.2.1")
    wait_s = int(refused.value.headers["Retry-After"])
    wrong.note("192.0.2.2")
    clock.advance(wait_s)
    wrong.note("192.0.2.1")
    with pytest.raises(TooManyWrongTokens):
        wrong.note("192.0.2.1")


def test_a_clock_that_is_set_neither_admits_nor_delays_wrong_tokens() -> None:
    clock = FakeClock()
    wrong = WrongTokens(clock)
    for _ in range(10):
        wrong.note("192.0.2.1")
    for change in (86_400, -2 * 86_400):
        clock.set_wall(change)
        with pytest.raises(TooManyWrongTokens) as refused:
            wrong.note("192.0.2.1")
    clock.advance(int(refused.value.headers["Retry-After"]))
    wrong.note("192.0.2.1")


def test_an_address_of_version_6_counts_by_its_network() -> None:
    wrong = WrongTokens(FakeClock())
    for number in range(10):
        wrong.note(f"2001:db8::{number:x}")
    with pytest.raises(TooManyWrongTokens):
        wrong.note("2001:db8::ffff")
    wrong.note("2001:db8:0:1::1")
    for number in range(10):
        wrong.note(f"::ffff:192.0.2.{number}")


def test_hostile_addresses_do_not_fill_the_memory() -> None:
    wrong = WrongTokens(FakeClock())
    for number in range(20_000):
        wrong.note(f"10.0.{number >> 8}.{number & 255}")
    assert repr(wrong) == "<WrongTokens <AddressLimit addresses=10000>>"
