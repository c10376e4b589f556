"""How a partial update meets what is stored, against the rules written down a second time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.app import App
from hearth.models.call_auth import Signature
from hearth.models.delivery import Delivery
from hearth.models.errors import AppsNameImmutable, RoutesPathImmutable
from hearth.models.instances import Instances
from hearth.models.patch import AppPatch, RoutePatch, apply_app_patch, apply_route_patch, new_route
from hearth.models.route import Route
from hearth.models.times import ZERO

NOW = dt.datetime(2018, 1, 31, tzinfo=dt.UTC)
LATER = dt.datetime(2019, 1, 31, tzinfo=dt.UTC)

KEYS = st.sampled_from(["A", "a", "B-b", "", "ä"])
NAMES = st.sampled_from(["X-A", "x-a", "X-B", "Ä"])
CONFIGS = st.dictionaries(KEYS, st.sampled_from(["1", "2", "<&>"]))
HEADERS = st.dictionaries(NAMES, st.lists(st.sampled_from(["1", "2"]), min_size=1), max_size=2).filter(
    lambda given: len({name.lower() for name in given}) == len(given)
)
SECRETS = st.lists(st.sampled_from(["S", "T"]), unique=True).map(tuple)
SIGNATURES = st.sampled_from([Signature(style="github", secret="S"), Signature(style="stripe", secret="S")])
ROUTES = st.builds(
    Route,
    app_name=st.just("a"),
    path=st.just("/p"),
    image=st.sampled_from(["x", "y"]),
    memory=st.integers(1, 3),
    cpu_milli=st.integers(0, 2),
    headers=HEADERS,
    type=st.sampled_from(["sync", "async"]),
    format=st.sampled_from(["default", "json"]),
    timeout=st.integers(1, 3),
    idle_timeout=st.integers(1, 3),
    config=CONFIGS,
    secrets=SECRETS,
    secrets_as=st.sampled_from(["env", "files"]),
    concurrency=st.integers(1, 3),
    auth=st.sampled_from(["", "open", "token"]),
    signature=st.none() | SIGNATURES,
    created_at=st.just(NOW),
    updated_at=st.just(NOW),
)
PATCHES = st.builds(
    RoutePatch,
    path=st.sampled_from(["", "/p"]),
    image=st.sampled_from(["", "x", "y"]),
    memory=st.integers(0, 3),
    cpu_milli=st.integers(0, 2),
    headers=st.none() | st.dictionaries(NAMES, st.none() | st.lists(st.sampled_from(["1", "2"]))),
    type=st.sampled_from(["", "sync", "async"]),
    format=st.sampled_from(["", "default", "json"]),
    timeout=st.integers(0, 3),
    idle_timeout=st.integers(0, 3),
    config=st.none() | st.dictionaries(KEYS, st.sampled_from(["", "1", "2"])),
    secrets=st.none() | SECRETS,
    secrets_as=st.sampled_from(["", "env", "files"]),
    concurrency=st.integers(0, 3),
    auth=st.sampled_from(["", "open", "token", "default"]),
    signature=st.none() | SIGNATURES,
)
SCALARS = (
    *("image", "memory", "cpu_milli", "type", "format", "timeout", "idle_timeout", "secrets_as", "signature"),
    "concurrency",
)


def expected_config(stored: dict[str, str], changes: dict[str, str] | None) -> dict[str, str]:
    changes = changes or {}
    kept = {key: value for key, value in stored.items() if key not in changes}
    return kept | {key: value for key, value in changes.items() if value}


def expected_auth(stored: str, change: str) -> str:
    return {"": stored, "default": ""}.get(change, change)


def expected_headers(stored: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    last = {name.lower(): (name, values) for name, values in (changes or {}).items()}
    kept = {name: values for name, values in stored.items() if name.lower() not in last}
    return kept | {name: values for name, values in last.values() if values}


@given(ROUTES, PATCHES)
def test_a_route_is_merged_by_the_rules(route: Route, patch: RoutePatch) -> None:
    before = msgspec.json.encode([route, patch])
    merged = apply_route_patch(route, patch, LATER)
    for name in SCALARS:
        assert getattr(merged, name) == (getattr(patch, name) or getattr(route, name))
    assert merged.config == expected_config(route.config, patch.config)
    assert merged.headers == expected_headers(route.headers, patch.headers)
    assert merged.auth == expected_auth(route.auth, patch.auth)
    assert merged.secrets == (route.secrets if patch.secrets is None else patch.secrets)
    assert (merged.app_name, merged.path, merged.created_at) == ("a", "/p", NOW)
    same = msgspec.structs.replace(merged, updated_at=NOW) == route
    assert merged.updated_at == (NOW if same else LATER)
    assert msgspec.json.encode([route, patch]) == before  # neither was touched


@given(ROUTES, PATCHES)
def test_a_patch_applied_twice_is_a_patch_applied_once(route: Route, patch: RoutePatch) -> None:
    once = apply_route_patch(route, patch, LATER)
    assert apply_route_patch(once, patch, LATER.replace(year=2020)) == once


@given(CONFIGS, st.none() | st.dictionaries(KEYS, st.sampled_from(["", "1", "2"])))
def test_an_app_is_merged_by_the_rules(config: dict[str, str], changes: dict[str, str] | None) -> None:
    app = App(name="a", config=config, created_at=NOW, updated_at=NOW)
    merged = apply_app_patch(app, AppPatch(config=changes), LATER)
    assert merged.config == expected_config(config, changes)
    assert merged.updated_at == (NOW if merged.config == config else LATER)
    assert (merged.name, merged.created_at) == ("a", NOW)


@pytest.mark.parametrize("stored", ["", "open", "token"])
@pytest.mark.parametrize("change", ["", "open", "token", "default"])
def test_the_proof_that_an_app_asks_for_is_merged_by_the_rules(stored: str, change: str) -> None:
    app = App(name="a", auth=stored, created_at=NOW, updated_at=NOW)
    merged = apply_app_patch(app, AppPatch(auth=change), LATER)
    assert merged.auth == expected_auth(stored, change)
    assert merged.updated_at == (NOW if merged.auth == stored else LATER)


CHANGES: dict[str, Any] = {
    "image": "other",
    "memory": 7,
    "cpu_milli": 7,
    "headers": {"New": ["1"]},
    "type": "async",
    "format": "http",
    "timeout": 7,
    "idle_timeout": 7,
    "config": {"NEW": "1"},
    "secrets": ("NEW",),
    "secrets_as": "files",
    "concurrency": 7,
    "auth": "token",
    "signature": Signature(style="github", secret="NEW"),
    "instances": {"min_instances": 7, "max_instances": 8},
    "delivery": {"result_ttl_s": 7},
}


def test_every_field_that_can_be_set_is_changed_below() -> None:
    read_only = {"app_name", "path", "created_at", "updated_at", "digest"}
    given = set(RoutePatch.__struct_fields__) - {"path", "digest"}
    assert set(CHANGES) == set(Route.__struct_fields__) - read_only == given


def test_a_digest_changes_with_its_image_only() -> None:
    route = Route(app_name="a", path="/p", image="x", digest="one", created_at=NOW, updated_at=NOW)
    for patch, image, digest in (
        (RoutePatch(memory=7), "x", "one"),
        (RoutePatch(digest="two"), "x", "one"),
        (RoutePatch(image="x", digest="two"), "x", "two"),
        (RoutePatch(image="y", digest="two"), "y", "two"),
        (RoutePatch(image="y"), "y", ""),
    ):
        merged = apply_route_patch(route, patch, LATER)
        assert (merged.image, merged.digest) == (image, digest)
    assert new_route("a", RoutePatch(path="/p", image="x", digest="two"), NOW).digest == "two"


@pytest.mark.parametrize("field", list(CHANGES))
def test_a_change_of_any_one_field_is_a_change(field: str) -> None:
    route = Route(app_name="a", path="/p", image="x", created_at=NOW, updated_at=NOW)
    merged = apply_route_patch(route, RoutePatch(**{field: CHANGES[field]}), LATER)
    assert merged != route
    built = {"delivery": Delivery(result_ttl_s=7), "instances": Instances(min_instances=7, max_instances=8)}
    assert getattr(merged, field) == built.get(field, CHANGES[field])
    assert merged.updated_at == LATER


@given(PATCHES)
def test_a_new_route_is_the_defaults_with_a_patch(patch: RoutePatch) -> None:
    patch.path = "/p"
    made = new_route("a", patch, NOW)
    plain = Route(app_name="a", path="/p", created_at=NOW, updated_at=NOW)
    for name in SCALARS:
        assert getattr(made, name) == (getattr(patch, name) or getattr(plain, name))
    assert made.config == (patch.config or {})  # empty values are stored as given
    assert made.headers == expected_headers({}, patch.headers)
    assert made.auth == expected_auth("", patch.auth)
    assert made.secrets == (patch.secrets or ())
    assert made.created_at == made.updated_at == NOW > ZERO


def test_another_name_or_path_is_refused() -> None:
    with pytest.raises(AppsNameImmutable):
        apply_app_patch(App(name="a"), AppPatch(name="b"), NOW)
    with pytest.raises(RoutesPathImmutable):
        apply_route_patch(Route(app_name="a", path="/p"), RoutePatch(path="/q"), NOW)
