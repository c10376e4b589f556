"""The exposition: its format, its names, its labels; the table is the whole truth about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.support.scrape import samples

from hearth.telemetry import metrics, names, series
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry

SOURCE = Path(__file__).parents[2] / "src" / "hearth"
DOCS = Path(__file__).parents[2] / "docs" / "observability.md"


def text_of(metrics: Metrics) -> str:
    return b"".join(metrics.exposition()).decode()


def test_every_metric_of_the_table_is_served_with_its_kind_before_anything_has_happened() -> None:
    families = {family.name: family for family in text_string_to_metric_families(text_of(Metrics()))}
    for metric in names.METRICS.values():
        assert families[metric.name].type == metric.kind, metric.name
        assert families[metric.name].documentation == f"Metric {metric.name}"


def test_every_sample_of_ours_has_the_two_labels_and_no_other() -> None:
    telemetry = Telemetry()
    with telemetry.tracing.span("agent_submit", "scrape", "/test"):
        pass
    for family in text_string_to_metric_families(text_of(telemetry.metrics)):
        if family.name.startswith("fn_"):
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == {"fn_appname", "fn_path"}, sample


def test_the_process_tells_of_itself() -> None:
    told = samples(text_of(Metrics()))
    assert told["process_resident_memory_bytes", "", ""] > 0


def test_labels_may_hold_anything() -> None:
    path = 'a"b\\c\nd/é'
    one = Metrics()
    one.counter("fn_calls").add(1, "odd", path)
    assert samples(text_of(one))["fn_calls", "odd", path] == 1


def test_the_number_of_series_is_bounded_and_nothing_goes_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_SERIES", 3)
    counter, spread = series.Value("bounded", "counter"), series.Histogram("spread")
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
    monkeypatch.setattr(metrics, "PIECE", 1)
    one = Metrics()
    waited = one.histogram("fn_container_wait_duration_seconds")
    waited.observe(1, "told", "/stays")
    text = b""
    for number, piece in enumerate(one.exposition()):
        text += piece
        one.forget("told", f"/{number - 3}")
        waited.observe(1, "told", f"/{number}")
        waited.observe(1, "told", "/stays")
    told = samples(text.decode())
    assert told["fn_container_wait_duration_seconds_count", "told", "/stays"] > 1
    assert ("fn_container_wait_duration_seconds_count", "told", "/0") not in told
    for (name, *labels), value in told.items():
        if labels[0] == "told" and name.endswith("_sum"):  # each value is 1
            assert told[f"{name.removesuffix('sum')}count", labels[0], labels[1]] == value


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    histogram = series.Histogram("test_seconds")
    for value in (0.005, 0.006, 3, 11):
        histogram.observe(value, "a", "/b")
    told = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families("# TYPE test_seconds histogram\n" + "".join(histogram.texts()))
        for sample in family.samples
        if sample.name == "test_seconds_bucket"
    }
    assert (told["0.005"], told["0.01"], told["2.5"], told["5"], told["10"], told["+Inf"]) == (1, 2, 2, 3, 3, 4)


@pytest.mark.parametrize("name", [name for name, metric in names.METRICS.items() if metric.unit == "bytes"])
def test_bytes_have_buckets_for_bytes(name: str) -> None:
    buckets = names.METRICS[name].buckets
    assert set(names.TIME_BUCKETS) <= set(buckets)
    assert max(buckets) >= 8 << 30


def test_two_nodes_of_a_process_share_no_value() -> None:
    one, other = Telemetry(), Telemetry()
    one.metrics.counter("fn_calls").add(1, "a", "/p")
    with one.tracing.span("agent_submit", "a", "/p"):
        pass
    assert ("fn_calls", "a", "/p") in samples(text_of(one.metrics))
    assert not [key for key in samples(text_of(other.metrics)) if key[1:] == ("a", "/p")]


def test_the_library_reads_from_the_collector_what_it_reads_from_the_text() -> None:
    telemetry = Telemetry()
    telemetry.metrics.counter("fn_calls").add(2, "a", 'odd"\\\n')
    telemetry.metrics.gauge("fn_queued").set(0.5)
    for seconds in (0.005, 3.25, 11):
        telemetry.metrics.histogram("fn_container_wait_duration_seconds").observe(seconds, "a", "/p")
    registry = CollectorRegistry()
    registry.register(telemetry.metrics)  # a collector that is loaded later
    of_process = {family.name for family in telemetry.metrics.registry.collect()}
    written = [
        sample
        for family in text_string_to_metric_families(text_of(telemetry.metrics))
        if family.name not in of_process
        for sample in family.samples
    ]
    assert {(one.name, *one.labels.items()): one.value for one in written} == {
        (one.name, *one.labels.items()): one.value for family in registry.collect() for one in family.samples
    }


def test_a_name_has_one_kind() -> None:
    with pytest.raises(TypeError):
        Metrics().gauge("fn_calls")
    with pytest.raises(TypeError):
        Metrics().histogram("fn_calls")


def test_every_name_in_the_code_is_in_a_table() -> None:
    made = re.compile(r"""(?:metrics\.(?:counter|gauge|histogram)|(span|Step))\(\s*f?"([^"]+)\"""")
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


def test_the_page_shows_kind_and_unit_of_each_metric() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+)[^|]*\|", DOCS.read_text(), re.MULTILINE)
    shown = {name: (kind, unit) for name, kind, unit in rows if name in names.METRICS}
    assert shown == {name: (metric.kind, metric.unit) for name, metric in names.METRICS.items()}
