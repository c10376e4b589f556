"""Every deploy is a version, and any of the last ones can serve again."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Cli
from tests.support.node import running_node

TEXT = "from hearth_fdk import function\n\n@function\ndef handle(body: dict) -> str:\n    return {text!r}\n"


def test_a_function_goes_back_to_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with running_node("process", tmp_path / "data", "") as node:
        cli = Cli(node.url, tmp_path)
        cli("init", "greet", cwd=tmp_path)
        folder = tmp_path / "greet"
        for text in ("one", "two", "three"):
            (folder / "func.py").write_text(TEXT.format(text=text))
            cli("deploy", "--app", "a", "-w", folder)
        listed = cli.json("versions", "a", "/greet", "-o", "json")
        assert [one["image"].partition("@")[0] for one in listed] == ["greet:0.0.4", "greet:0.0.3", "greet:0.0.2"]
        assert {one["principal"] for one in listed} == {"local"}
        assert "three" in node.http.post("/r/a/greet", json={}).text
        told = cli("rollback", "a", "/greet", "2")
        assert f"Rolled back a/greet to {listed[2]['image']}" in told
        assert "one" in node.http.post("/r/a/greet", json={}).text
        assert cli.json("versions", "a", "/greet", "-o", "json")[0]["image"] == listed[2]["image"]
        cli("rollback", "a", "/greet")  # back to where it came from
        assert "three" in node.http.post("/r/a/greet", json={}).text
        node.http.patch("/v1/apps/a/routes/greet", json={"route": {"memory": 64}})
        assert len(cli.json("versions", "a", "/greet", "-o", "json")) == 5  # not a deploy
        assert "has 4 earlier versions" in cli.fails(1, "rollback", "a", "/greet", "9")
        assert "App not found" in cli.fails(1, "versions", "none", "/greet")


def test_a_fn_has_a_history_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with running_node("process", tmp_path / "data", "") as node:
        app = node.http.post("/v2/apps", json={"name": "a"}).json()["id"]
        fn = node.http.post("/v2/fns", json={"app_id": app, "name": "f", "image": "f:1"}).json()["id"]
        node.http.put(f"/v2/fns/{fn}", json={"image": "f:2", "config": {"K": "v"}})
        node.http.put(f"/v2/fns/{fn}", json={"memory": 256})
        found = node.http.get("/v1/apps/a/versions", params={"function": fn}).json()["versions"]
        assert [one["image"] for one in found] == ["f:2", "f:1"]
        assert found[0]["config_hash"] != found[1]["config_hash"]
