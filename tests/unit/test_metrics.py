"""The exposition: its format, its names, its labels; the table is the whole truth about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.scrape import samples

from hearth.telemetry import metrics, names
from hearth.telemetry.tracing import span

SOURCE = Path(__file__).parents[2] / "src" / "hearth"
DOCS = Path(__file__).parents[2] / "docs" / "observability.md"


def test_every_metric_of_the_table_is_served_with_its_kind_before_anything_has_happened() -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(b"".join(metrics.exposition()).decode())
    }
    for metric in names.METRICS.values():
        assert families[metric.name].type == metric.kind, metric.name
        assert families[metric.name].documentation == f"Metric {metric.name}"


def test_every_sample_of_ours_has_the_two_labels_and_no_other() -> None:
    with span("agent_submit", "scrape", "/test"):
        pass
    for family in text_string_to_metric_families(b"".join(metrics.exposition()).decode()):
        if family.name.startswith("fn_"):
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == {"fn_appname", "fn_path"}, sample


def test_the_process_tells_of_itself() -> None:
    told = samples(b"".join(metrics.exposition()).decode())
    assert told["process_resident_memory_bytes", "", ""] > 0


def test_labels_may_hold_anything() -> None:
    path = 'a"b\\c\nd/é'
    metrics.counter("fn_calls").add(1, "odd", path)
    assert samples(b"".join(metrics.exposition()).decode())["fn_calls", "odd", path] == 1


def test_the_number_of_series_is_bounded_and_nothing_goes_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    counter, spread = metrics.Value("bounded", "counter"), metrics.Histogram("spread")
    for number in range(10):
        counter.add(1, "app", f"/{number}")
        spread.observe(0.1, "app", f"/{number}")
    assert [text for text in counter.texts() if text.startswith("bounded")] == [
        'bounded{fn_appname="",fn_path=""} 8\n',
        'bounded{fn_appname="app",fn_path="/0"} 1\n',
        'bounded{fn_appname="app",fn_path="/1"} 1\n',
    ]
    counts = [line for line in "".join(spread.texts()).splitlines() if line.startswith("spread_count")]
    assert sum(int(line.split()[-1]) for line in counts) == 10
    assert len(counts) <= 4


def test_series_may_come_and_go_and_count_while_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_PIECE", 1)
    waited = metrics.histogram("fn_container_wait_duration_seconds")
    waited.observe(1, "told", "/stays")
    text = b""
    for number, piece in enumerate(metrics.exposition()):
        text += piece
        metrics.forget("told", f"/{number - 3}")
        waited.observe(1, "told", f"/{number}")
        waited.observe(1, "told", "/stays")
    for path in {path for app, path in metrics.labels() if app == "told"}:
        metrics.forget("told", path)
    told = samples(text.decode())
    assert told["fn_container_wait_duration_seconds_count", "told", "/stays"] > 1
    assert ("fn_container_wait_duration_seconds_count", "told", "/0") not in told
    for (name, *labels), value in told.items():
        if labels[0] == "told" and name.endswith("_sum"):  # each value is 1
            assert told[f"{name.removesuffix('sum')}count", labels[0], labels[1]] == value


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    histogram = metrics.histogram("test_seconds")
    for value in (0.005, 0.006, 3, 11):
        histogram.observe(value, "a", "/b")
    told = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families("".join(histogram.texts()))
        for sample in family.samples
        if sample.name == "test_seconds_bucket"
    }
    assert (told["0.005"], told["0.01"], told["2.5"], told["5"], told["10"], told["+Inf"]) == (1, 2, 2, 3, 3, 4)


@pytest.mark.parametrize("name", [name for name, metric in names.METRICS.items() if metric.unit == "bytes"])
def test_bytes_have_buckets_for_bytes(name: str) -> None:
    buckets = names.METRICS[name].buckets
    assert set(names.TIME_BUCKETS) <= set(buckets)
    assert max(buckets) >= 8 << 30


def test_a_name_has_one_kind() -> None:
    with pytest.raises(TypeError):
        metrics.gauge("fn_calls")
    with pytest.raises(TypeError):
        metrics.histogram("fn_calls")


def test_every_name_in_the_code_is_in_a_table() -> None:
    made = re.compile(r"""\b(?:metrics\.(?:counter|gauge|histogram)|(span))\(\s*f?"([^"]+)\"""")
    found = [
        (bool(kind), name, file)
        for file in SOURCE.rglob("*.py")
        for kind, name in made.findall(file.read_text())
        if file.parent.name != "telemetry"
    ]
    assert found
    for is_span, name, file in found:
        known = names.SPANS if is_span else names.METRICS
        pattern = re.compile(re.sub(r"\{[^}]*\}", ".+", name))
        assert any(pattern.fullmatch(one) for one in known), f"{name}, used in {file}, is not in telemetry/names.py"


def test_the_documentation_has_every_metric_and_every_span() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", DOCS.read_text().partition("\n## Logs")[0], re.MULTILINE))
    expected = {*names.METRICS, *names.SPANS}
    assert rows >= expected, f"missing: {sorted(expected - rows)}"
    known = {name for name in rows if name.startswith(("fn_", "agent_", "docker_", "ds_", "s3_", "mq_", "hybrid_"))}
    assert known <= expected, f"not in the code: {sorted(known - expected)}"
