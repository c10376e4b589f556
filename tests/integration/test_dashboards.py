"""The shipped dashboards against a real Prometheus that scrapes a loaded node: every panel shows something."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.servers import prometheus, s3
from tests.support.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}


def expressions(dashboard: dict[str, Any]) -> dict[str, str]:
    """Each query of each panel, as Grafana would send it."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$__rate_interval", "15s")
        .replace("$app", ".*")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def config(node: RunningNode, folder: Path) -> str:
    """The shipped configuration, with one node in place of the fleet, looked at more often."""
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    [job] = shipped["scrape_configs"]
    token = folder / "token"  # the server is another user
    token.write_text((node.data / "admin-token").read_text())
    job["authorization"]["credentials_file"] = str(token)
    (folder / "hearth.rules.yml").write_text((DEPLOY / "prometheus" / "hearth.rules.yml").read_text())
    job["static_configs"] = [{"targets": [node.url.removeprefix("http://")]}]
    return yaml.safe_dump(shipped)


def load(node: RunningNode) -> None:
    """A bit of everything: hot, cold, failing and async calls; a log is read, a container ends."""
    hot, cold = node.route("hot", "json", idle_timeout=30), node.route("cold", "default")
    short, later = node.route("short", "json", idle_timeout=1), node.route("later", "json", type="async")
    for path, orders in ((hot, {}), (hot, {"exit": 1}), (cold, {}), (short, {}), (later, {})):
        node.call(path, say="something", **orders)
    node.log(node.call(hot, say="something"))


def test_every_panel_shows_something(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("node", "s3", "prometheus")}
    for folder in folders.values():
        folder.mkdir()
    image = build_multi(folders["node"], folders["node"] / "source")
    with s3(folders["s3"]) as store:
        logs = f"s3://key:se%2Fcr%2Bet@127.0.0.1:{store.port}/us-east-1/logs"
        with (
            running_node("process", folders["node"], image, FN_LOGSTORE_URL=logs) as node,
            prometheus(folders["prometheus"], config(node, folders["prometheus"])) as server,
            httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as asks,
        ):
            missing = {
                (name, panel): expression
                for name, dashboard in DASHBOARDS.items()
                for panel, expression in expressions(dashboard).items()
            }
            assert len(missing) > 50
            end = time.monotonic() + 240
            while missing and time.monotonic() < end:
                load(node)
                missing = {key: expression for key, expression in missing.items() if not _has_data(asks, expression)}
            assert not missing
            assert until(lambda: "unknown" not in _alerts(asks).values())
            alerts = _alerts(asks)
            assert len(alerts) >= 20
            assert set(alerts.values()) == {"ok"}, alerts


def _alerts(asks: httpx.Client) -> dict[str, str]:
    """Whether Prometheus could evaluate each alert."""
    groups = asks.get("/api/v1/rules").json()["data"]["groups"]
    return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


def _has_data(asks: httpx.Client, expression: str) -> bool:
    answer = asks.get("/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, (expression, answer.text)
    found = answer.json()["data"]["result"]
    return any(sample["value"][1] != "NaN" for sample in found)


def test_grafana_is_given_the_dashboards_and_the_source_that_they_name() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = dict(reversed(mount.split(":")[:2]) for mount in services["grafana"]["volumes"])
    provisioning = DEPLOY / mounts["/etc/grafana/provisioning"]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert host in services["grafana"]["depends_on"]
    assert port == "9090", "where Prometheus listens unless told otherwise"
    assert not [option for option in services[host].get("command", []) if "listen-address" in option]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "hearth.yaml").read_text())["providers"]
    assert (source["type"], provider["type"]) == ("prometheus", "file")
    found = {path.stem for path in (DEPLOY / mounts[provider["options"]["path"]]).glob("*.json")}
    assert found == set(DASHBOARDS) != set()
    named = {(one["type"], one["uid"]) for board in DASHBOARDS.values() for one in _sources(board)}
    assert named == {(source["type"], source["uid"])}


def _sources(part: Any) -> Iterator[dict[str, str]]:
    """Every data source that a part of a dashboard names."""
    if isinstance(part, dict):
        if isinstance(part.get("datasource"), dict):
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _sources(inner)


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_a_dashboard_is_complete(dashboard: str) -> None:
    board = DASHBOARDS[dashboard]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "prometheus" for panel in panels)
    assert re.fullmatch(r"hearth-[a-z]+", board["uid"])
