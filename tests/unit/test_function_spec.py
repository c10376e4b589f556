"""What a function's spec promises: two functions share containers only if all that shapes a container is equal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.function import Amount, FunctionRef, FunctionSpec
from hearth.models.secret import SecretValues

REF = FunctionRef(id="f-1", app_id="app-1", app_name="a", name="/f")
SPEC = FunctionSpec(
    ref=REF,
    image="i",
    contract="json",
    amount=Amount(128, 0),
    timeout_s=30,
    idle_timeout_s=30,
    is_sync=True,
    environment={},
    container_labels={"app": "a", "path": "/f"},
)

#: Few texts and numbers, many of which join to the same text: a digest that mixes up fields meets an equal one soon.
TEXTS = st.text("/ab\0é1", max_size=3)
NUMBERS = st.integers(0, 12)
CONFIGS = st.dictionaries(TEXTS, TEXTS, max_size=2)
REFS = st.builds(FunctionRef, id=TEXTS, app_id=TEXTS, app_name=TEXTS, name=TEXTS)
FIELDS = {
    "ref": REFS,
    "image": TEXTS,
    "contract": TEXTS,
    "amount": st.builds(Amount, NUMBERS, NUMBERS),
    "timeout_s": NUMBERS,
    "idle_timeout_s": NUMBERS,
    "is_sync": st.booleans(),
    "environment": CONFIGS,
    "container_labels": CONFIGS,
    "secrets": st.builds(SecretValues, st.just({}), CONFIGS),
    "secrets_as_files": st.booleans(),
    "concurrency": st.integers(1, 1000),
    "syslog_url": TEXTS,
}
NUMBERS_OF_CONTAINERS = ("min_instances", "max_instances")
SPECS = st.fixed_dictionaries(FIELDS)


def spec(**changes: Any) -> FunctionSpec:
    return msgspec.structs.replace(SPEC, **changes)


def shape(made: FunctionSpec) -> dict[str, Any]:
    return {name: getattr(made, name) for name in FIELDS}


def test_the_properties_below_know_all_fields_of_a_spec() -> None:
    assert {*FIELDS, "hot_key", *NUMBERS_OF_CONTAINERS} == set(FunctionSpec.__struct_fields__)


def test_numbers_of_containers_shape_none() -> None:
    for name in NUMBERS_OF_CONTAINERS:
        assert spec(**{name: 7}).hot_key == SPEC.hot_key


@given(SPECS, SPECS)
def test_two_specs_share_a_key_only_if_all_fields_are_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (FunctionSpec(**one).hot_key == FunctionSpec(**other).hot_key) == (one == other)


@given(SPECS, st.data())
def test_a_change_of_any_field_changes_the_key(fields: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    changed = {**fields, name: data.draw(FIELDS[name])}
    assert (FunctionSpec(**changed).hot_key == FunctionSpec(**fields).hot_key) == (changed == fields)


@given(SPECS, st.permutations(range(2)))
def test_the_order_of_environment_variables_does_not_matter(fields: dict[str, Any], order: list[int]) -> None:
    pairs = list(fields["environment"].items())
    turned = {**fields, "environment": dict([pairs[index] for index in order if index < len(pairs)])}
    assert FunctionSpec(**turned).hot_key == FunctionSpec(**fields).hot_key


@pytest.mark.parametrize(
    "change",
    [
        {"ref": msgspec.structs.replace(REF, id="f-2")},
        {"ref": msgspec.structs.replace(REF, app_id="app-2")},
        {"ref": msgspec.structs.replace(REF, app_name="b")},
        {"ref": msgspec.structs.replace(REF, name="/g")},
        {"image": "j"},
        {"contract": "http"},
        {"amount": Amount(129, 0)},
        {"amount": Amount(128, 100)},
        {"timeout_s": 31},
        {"idle_timeout_s": 31},
        {"is_sync": False},
        {"environment": {"A": "B"}},
        {"container_labels": {"app": "a"}},
        {"secrets": SecretValues({}, {"KEY": "id:1"})},
        {"secrets_as_files": True},
        {"concurrency": 2},
    ],
    ids=str,
)
def test_functions_that_differ_in_what_shapes_a_container_share_none(change: dict[str, Any]) -> None:
    assert spec().hot_key == SPEC.hot_key
    assert shape(spec(**change)) == shape(SPEC) | change
    assert spec(**change).hot_key != SPEC.hot_key


def test_texts_that_only_join_to_the_same_make_different_keys() -> None:
    configs = [{"AB": "C"}, {"A": "BC"}, {"A": "B", "C": ""}, {"ABC": ""}, {}]
    assert len({spec(environment=config).hot_key for config in configs}) == len(configs)
    moved = [
        spec(environment=one, container_labels=other).hot_key for one, other in (({"A": "B"}, {}), ({}, {"A": "B"}))
    ]
    assert len(set(moved)) == 2
    names = [msgspec.structs.replace(REF, app_name=app, name=name) for app, name in (("a", "/b/c"), ("a/b", "/c"))]
    assert len({spec(ref=ref).hot_key for ref in names}) == 2
    times = [spec(timeout_s=timeout, idle_timeout_s=idle).hot_key for timeout, idle in ((1, 23), (12, 3))]
    assert len(set(times)) == 2


def test_an_unencodable_environment_has_a_key() -> None:
    assert spec(environment={"A": "\ud800"}).hot_key != spec(environment={"A": "\ud801"}).hot_key


def test_a_new_version_of_a_secret_makes_another_key_and_no_key_or_repr_depends_on_a_value() -> None:
    first, again, changed = [
        spec(secrets=SecretValues({"KEY": value}, {"KEY": version}))
        for value, version in (("geheim", "id:1"), ("geheimer", "id:1"), ("geheim", "id:2"))
    ]
    assert first.hot_key == again.hot_key != changed.hot_key
    assert "geheim" not in repr(first)
