"""The shipped alerts: promtool accepts them, each fires when it should and only then, and each has a runbook."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.servers import need

from hearth.telemetry.names import METRICS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "hearth.rules.yml"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
#: What Prometheus and the client library for Python add to the metrics of a node.
OF_PROCESSES = {"up", "process_start_time_seconds", "process_open_fds", "process_max_fds"}
NODE = 'instance="n",job="hearth"'
APP = f'fn_appname="a",{NODE}'
#: Of a counter of a rare event: its first event creates it, and is not missed.
RARE = ("_x20 1x40", "3x60")

#: For each alert: the labels of its series, and the values of a minute each for which it fires, and for which it does
#: not, by metric.
CASES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "HearthNodeDown": (NODE, {"up": ("1x20 0x40", "1x20 0 1x40")}),
    "HearthNodeRestarts": (NODE, {"process_start_time_seconds": ("100x9 200x9 300x9 400x40", "100x20 200x40")}),
    "HearthFilesRunOut": (NODE, {"process_open_fds": ("90x60", "79x60"), "process_max_fds": ("100x60", "100x60")}),
    "HearthConnectionsRefused": (NODE, {"hearth_connections_refused": RARE}),
    "HearthCertificateExpires": (
        NODE,
        {"hearth_tls_certificate_expiry_timestamp_seconds": ("600000x99", "0x99")},
    ),
    "HearthFunctionsUnsandboxed": (NODE, {"hearth_functions_unsandboxed": ("1x60", "0x60")}),
    "HearthLogLinesDropped": (NODE, {"hearth_log_lines_dropped": RARE}),
    "HearthServerBusy": (APP, {"fn_server_busy": ("0+6x60", "0+4x60"), "fn_calls": ("0+100x60", "0+100x60")}),
    "HearthCallsFail": (APP, {"fn_failed": ("0+11x60", "0+9x60"), "fn_calls": ("0+100x60", "0+100x60")}),
    "HearthStartsSlow": (
        APP,
        {
            'fn_container_start_duration_seconds_bucket{le="5"}': ("0+8x60", "0+10x60"),
            'fn_container_start_duration_seconds_bucket{le="10"}': ("0+10x60", "0+10x60"),
            'fn_container_start_duration_seconds_bucket{le="+Inf"}': ("0+10x60", "0+10x60"),
        },
    ),
    "HearthQuotaOfStorage": (APP, {"hearth_quota_refusals_stored_bytes": RARE}),
    "HearthQueueOld": (NODE, {"hearth_queue_oldest_age_seconds": ("301x60", "299x60")}),
    "HearthDeadLetters": (APP, {"hearth_dead_letters": ("2x20 3x40", "3x20 1x40")}),
    "HearthSchedulesFail": (APP, {"hearth_schedule_failed": RARE}),
    "HearthSchedulesLate": (
        APP,
        {
            'hearth_schedule_lateness_seconds_bucket{le="5"}': ("0+8x60", "0+10x60"),
            'hearth_schedule_lateness_seconds_bucket{le="10"}': ("0+10x60", "0+10x60"),
            'hearth_schedule_lateness_seconds_bucket{le="+Inf"}': ("0+10x60", "0+10x60"),
        },
    ),
    "HearthRecordsWait": (NODE, {"hearth_records_waiting": ("1001x60", "1000x60")}),
    "HearthRecordsLost": (NODE, {"hearth_records_lost": RARE}),
    "HearthLogsLost": (NODE, {"hearth_logs_lost": RARE}),
    "HearthRunnerSpools": (NODE, {"hearth_runner_spooled": ("1x60", "0x20 5x3 0x40")}),
    "HearthRunnerRecordsRefused": (NODE, {"hearth_runner_records_refused": RARE}),
}
#: The minute at which a case is looked at, where it is not the 32nd.
AT: dict[str, int] = {"HearthCertificateExpires": 70, "HearthConnectionsRefused": 25}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([need("promtool"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series(metric: str, labels: str, values: str) -> dict[str, str]:
    """A series in the words of promtool; a histogram names its bucket."""
    name, _, more = metric.rstrip("}").partition("{")
    return {"series": f"{name}{{{','.join(filter(None, (labels, more)))}}}", "values": values}


def case(alert: str, *, fires: bool) -> dict[str, Any]:
    labels, metrics = CASES[alert]
    minute = f"{AT.get(alert, 32)}m"
    found = f'count(ALERTS{{alertstate="firing",alertname="{alert}"}})'
    return {
        "name": f"{alert} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [series(name, labels, values[not fires]) for name, values in metrics.items()],
        "promql_expr_test": [
            {"expr": found, "eval_time": minute, "exp_samples": [{"labels": "{}", "value": 1}] if fires else []}
        ],
    }


def test_promtool_accepts_the_rules_and_nothing_else_is_loaded() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
    assert config["rule_files"] == [RULES.name]


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert CASES.keys() == ALERTS.keys()
    tests = [case(alert, fires=fires) for alert in CASES for fires in (True, False)]
    page = tmp_path / "tests.yml"
    page.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", page)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_severity_a_summary_and_a_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{alert.lower()}"
    _, found, section = RUNBOOKS.partition(f"\n## {alert}\n")
    assert found, f"docs/runbooks.md has no section for {alert}"
    section = section.partition("\n## ")[0]
    for part in ("**Means:**", "**Look:**", "**Do:**"):
        assert part in section, part


def test_the_runbooks_are_those_of_the_alerts() -> None:
    assert [one for one in re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE) if one.startswith("Hearth")] == [*ALERTS]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_asks_for_metrics_that_a_node_has(alert: str) -> None:
    asked = {
        re.sub("_(bucket|sum|count)$", "", name)
        for name in re.findall(r"\b(?:(?:fn|hearth|process)_\w+|up)\b", ALERTS[alert]["expr"])
        if name != "fn_appname"
    }
    assert asked
    assert asked <= METRICS.keys() | OF_PROCESSES
