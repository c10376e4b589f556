"""What a route may be: validation order, CPU amounts, clean paths."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models import errors as e
from hearth.models.app import validate_app_name
from hearth.models.route import Route, RouteLimits, clean_path, format_cpus, parse_cpus, validate_route

GOOD = Route(app_name="a", path="/p", image="x")

#: Faults in the order of the specification; the first wins.
FAULTS: list[tuple[dict[str, Any], type[e.ApiError]]] = [
    ({"app_name": ""}, e.RoutesMissingAppName),
    ({"path": ""}, e.RoutesMissingPath),
    ({"path": ":\x00%"}, e.PathMalformed),
    ({"path": "a:b?c"}, e.FoundDynamicURL),
    ({"path": "a?b"}, e.RoutesInvalidPath),
    ({"image": ""}, e.RoutesMissingImage),
    ({"type": "other"}, e.RoutesInvalidType),
    ({"format": "other"}, e.RoutesInvalidFormat),
    ({"timeout": 121}, e.RoutesInvalidTimeout),
    ({"idle_timeout": 3601}, e.RoutesInvalidIdleTimeout),
    ({"memory": 8193}, e.RoutesInvalidMemory),
    ({"concurrency": 1001}, e.RoutesInvalidConcurrency),
]


@pytest.mark.parametrize("format_name", ["default", "http", "json"])
def test_a_format_on_pipes_carries_one_call_at_a_time(format_name: str) -> None:
    validate_route(msgspec.structs.replace(GOOD, format="http-stream", concurrency=1000))
    validate_route(msgspec.structs.replace(GOOD, format=format_name, concurrency=1))
    with pytest.raises(e.RoutesInvalidConcurrency, match=f"needs the format http-stream, not {format_name}$"):
        validate_route(msgspec.structs.replace(GOOD, format=format_name, concurrency=2))


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_the_first_fault_is_told(first: int) -> None:
    fields: dict[str, Any] = {}
    for fault, _ in reversed(FAULTS[first:]):
        fields |= fault
    with pytest.raises(FAULTS[first][1]):
        validate_route(msgspec.structs.replace(GOOD, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"timeout": 1},
        {"timeout": 120},
        {"type": "async", "timeout": 3600},
        {"idle_timeout": 1},
        {"idle_timeout": 3600},
        {"memory": 1},
        {"memory": 8192},
        {"format": "http"},
        {"format": "json"},
        {"path": "/"},
        {"path": "/a/b%20c"},
        {"path": "/[a]"},
    ],
)
def test_every_bound_is_good(fields: dict[str, Any]) -> None:
    validate_route(msgspec.structs.replace(GOOD, **fields))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"timeout": 0}, e.RoutesInvalidTimeout),
        ({"timeout": -1}, e.RoutesInvalidTimeout),
        ({"type": "async", "timeout": 3601}, e.RoutesInvalidTimeout),
        ({"idle_timeout": 0}, e.RoutesInvalidIdleTimeout),
        ({"memory": 0}, e.RoutesInvalidMemory),
        ({"path": "/a%2"}, e.PathMalformed),
        ({"path": "/a#b"}, e.RoutesInvalidPath),
    ],
)
def test_one_beyond_a_bound_is_not(fields: dict[str, Any], error: type[e.ApiError]) -> None:
    with pytest.raises(error):
        validate_route(msgspec.structs.replace(GOOD, **fields))


def test_the_largest_memory_is_the_caller_s() -> None:
    validate_route(msgspec.structs.replace(GOOD, memory=9000), RouteLimits(memory_mib=9000))


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("", 0),
        ("  ", 0),
        ("0m", 0),
        ("200m", 200),
        (" 0200m ", 200),
        ("1024000m", 1_024_000),
        ("0.2341", 234),
        (".2", 200),
        ("100.2000", 100_200),
        ("+00000", 0),
        ("-00000", 0),
        ("1", 1000),
        ("1.", 1000),
        ("1e2", 100_000),
        ("1024", 1_024_000),
        ("1024.000", 1_024_000),
    ],
)
def test_an_amount_of_cpu_is_read(text: str, milli: int) -> None:
    assert parse_cpus(text) == milli


@pytest.mark.parametrize(
    "text",
    [
        "foo",
        "-100",
        "-0.20",
        "1000000000000000000000000",
        "100000000000m",
        "1024001m",
        "1024.001",
        "+1m",
        "-1m",
        "1.5m",
        "m",
        "1 m",
        "1_000",
        "1_0m",
        "NaN",
        "nan",
        "inf",
        "Infinity",
        "-inf",
        "0x10",
        "1e400",
        "1,5",
        "\u0661",
        "\u0661m",
        "9" * 5000 + "m",
        pytest.param("1" * 200_000 + "x", id="read in one walk"),
    ],
)
def test_what_is_no_amount_of_cpu_is_refused(text: str) -> None:
    with pytest.raises(e.InvalidCPUs):
        parse_cpus(text)


@given(st.integers(min_value=0, max_value=1_024_000))
def test_an_amount_of_cpu_survives(milli: int) -> None:
    assert parse_cpus(format_cpus(milli)) == milli


@given(st.text())
def test_any_text_is_an_amount_within_bounds_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_cpus(text) <= 1_024_000
    except e.InvalidCPUs:
        pass


@given(st.text(alphabet="ab./", max_size=20))
def test_a_clean_path_is_absolute_and_stays_clean(path: str) -> None:
    cleaned = clean_path(path)
    assert cleaned.startswith("/")
    assert clean_path(cleaned) == cleaned
    assert clean_path(f"//{path}//") == cleaned
    assert not {"", ".", ".."} & set(cleaned[1:].split("/")) or cleaned == "/"


@given(st.text(alphabet="aZ09_-", min_size=1, max_size=30))
def test_a_name_of_good_characters_is_good(name: str) -> None:
    validate_app_name(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", e.AppsMissingName),
        ("a" * 31, e.AppsTooLongName),
        ("ä" * 16, e.AppsTooLongName),  # bytes count
        ("$" * 31, e.AppsTooLongName),
        ("ä", e.AppsInvalidName),
        ("a b", e.AppsInvalidName),
        ("a.b", e.AppsInvalidName),
        ("a\n", e.AppsInvalidName),
        ("\u0661", e.AppsInvalidName),
    ],
)
def test_a_bad_name_is_told(name: str, error: type[e.ApiError]) -> None:
    with pytest.raises(error):
        validate_app_name(name)
