"""What a function runs is what its image meant when it was set, whatever is built under that name later."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tests.support.cli import Cli
from tests.support.fleet import running_fleet
from tests.support.node import RunningNode, running_node
from tests.support.waiting import until

from hearth.drivers.local import stored

TEXT = "from hearth_fdk import function\n\n@function\ndef handle(body: dict) -> str:\n    return {text!r}\n"


def build(data: Path, folder: Path, text: str) -> str:
    """Build greet:1 with an answer of its own into a data folder; the digest of the image."""
    folder.mkdir(exist_ok=True)
    (folder / "func.py").write_text(TEXT.format(text=text))
    (folder / "func.yaml").write_text("name: greet\nversion: '1'\nruntime: python\n")
    Cli("", data, FN_DATA_DIR=str(data))("build", "--driver", "process", folder)
    found = stored.digest(data / "bundles", "greet:1")
    assert found is not None
    return found


def put(node: RunningNode, app: str, **fields: object) -> dict[str, Any]:
    answer = node.http.put(f"/v1/apps/{app}/routes/f", json={"route": {"format": "json", **fields}})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["route"])


def says(node: RunningNode, text: str, app: str = "a") -> bool:
    """Whether a call of the app's function is answered with this text."""
    return text in node.http.post(f"/r/{app}/f", json={}).text


def digest(node: RunningNode, app: str) -> str:
    return str(node.http.get(f"/v1/apps/{app}/routes/f").json()["route"].get("digest", ""))


def test_two_apps_that_build_the_same_name_do_not_disturb_each_other(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    one = build(data, tmp_path / "f", "one")
    with running_node("process", data, "") as node:
        assert put(node, "a", image="greet:1").items() >= {"image": "greet:1", "digest": one}.items()
        assert says(node, "one")
        two = build(data, tmp_path / "f", "two")
        assert put(node, "b", image="greet:1")["digest"] == two
        assert put(node, "a", memory=64)["digest"] == one
        assert says(node, "one", "a")
        assert says(node, "two", "b")
        assert put(node, "a", image="greet:1")["digest"] == two
        assert says(node, "two")
        told = Cli(node.url, tmp_path)("versions", "a", "/f")
        assert [one.partition(":")[2][:12] in told, two.partition(":")[2][:12] in told] == [True, True]


def test_an_image_that_comes_after_its_route_is_pinned_by_the_first_call(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with running_node("process", data, "") as node:
        assert "digest" not in put(node, "a", image="greet:1")
        assert node.http.post("/r/a/f", json={}).status_code >= 400
        one = build(data, tmp_path / "f", "one")
        assert until(lambda: says(node, "one"))
        assert until(lambda: digest(node, "a") == one)
        build(data, tmp_path / "f", "two")
        put(node, "a", memory=64)
        assert says(node, "one")


def test_functions_of_an_earlier_release_are_pinned_when_the_node_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    one = build(data, tmp_path / "f", "one")
    with running_node("process", data, "") as node:
        put(node, "a", image="greet:1")
        put(node, "b", image="none:1")
    with sqlite3.connect(data / "fn.db") as database:
        database.execute("UPDATE routes SET digest = NULL")
    with running_node("process", data, "") as node:
        assert digest(node, "a") == one
        assert digest(node, "b") == ""
        build(data, tmp_path / "f", "two")
        assert says(node, "one")


def test_a_runner_tells_its_api_node_what_an_image_means(tmp_path: Path) -> None:
    with running_fleet(tmp_path, runners=1) as fleet:
        api, runner = fleet.api, fleet.runners[0]
        assert "digest" not in put(api, "a", image="greet:1")
        one = build(tmp_path / "shared", tmp_path / "f", "one")
        assert says(runner, "one")
        assert until(lambda: digest(api, "a") == one)
        build(tmp_path / "shared", tmp_path / "f", "two")
        put(api, "a", memory=64)
        assert says(runner, "one")
