"""What cannot be an environment variable, a header or a name is refused; what is stored can be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make, message
from tests.support.cli import Cli

from hearth import projects
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.projects.app_file import load_app
from hearth.stores.sql import SqlDatastore

CONFIG = [
    ({"": "x"}, "Invalid config: a name is empty"),
    ({"A=B": "x"}, "Invalid config: name 'A=B' must not contain ="),
    ({"A\0B": "x"}, r"Invalid config: name 'A\x00B' must not contain NUL"),
    ({"FINE": "x", "A": "x\0y"}, "Invalid config: the value of 'A' must not contain NUL"),
]
HEADERS = [
    ({"": ["x"]}, "Invalid headers: name '' must consist of"),
    ({"X Y": ["x"]}, "Invalid headers: name 'X Y' must consist of"),
    ({"X:": ["x"]}, "Invalid headers: name 'X:' must consist of"),
    ({"X-A": ["fine", "a\r\nb"]}, "Invalid headers: a value of 'X-A' must not contain NUL or line breaks"),
    ({"X-A": ["a\0b"]}, "Invalid headers: a value of 'X-A' must not contain NUL or line breaks"),
]


@pytest.mark.parametrize(("config", "text"), CONFIG)
async def test_a_config_that_no_process_can_have_is_refused(
    api: httpx.AsyncClient, config: dict[str, str], text: str
) -> None:
    answer = await api.post(APPS, json={"app": {"name": "other", "config": config}})
    assert (answer.status_code, message(answer)) == (400, text)
    assert (await api.get(f"{APPS}/other")).status_code == 404
    await make(api)
    for method, path, key in (
        ("PATCH", f"{APPS}/myapp", "app"),
        ("PATCH", f"{ROUTES}/myroute", "route"),
        ("PUT", f"{ROUTES}/myroute", "route"),
        ("PUT", f"{ROUTES}/new", "route"),
        ("POST", ROUTES, "route"),
    ):
        fields = {"path": "/new", "image": "a/b"} if path.endswith(("new", "routes")) else {}
        answer = await api.request(method, path, json={key: {**fields, "config": config}})
        assert (answer.status_code, message(answer)) == (400, text), (method, path)
    assert "config" not in (await api.get(f"{APPS}/myapp")).json()["app"]
    assert (await api.get(f"{ROUTES}/new")).status_code == 404


@pytest.mark.parametrize(("headers", "text"), HEADERS)
async def test_headers_that_no_answer_can_have_are_refused(
    api: httpx.AsyncClient, headers: dict[str, list[str]], text: str
) -> None:
    await make(api)
    for method, path in (("PATCH", f"{ROUTES}/myroute"), ("PUT", f"{ROUTES}/new")):
        answer = await api.request(method, path, json={"route": {"image": "a/b", "headers": headers}})
        assert answer.status_code == 400
        assert message(answer).startswith(text)


async def test_what_an_older_server_has_stored_can_be_removed(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    now = SystemClock().now()
    await datastore.insert_app(App(name="old", config={"": "x", "A=B": "y", "C": "z"}, created_at=now, updated_at=now))
    answer = await api.patch(f"{APPS}/old", json={"app": {"config": {"": "", "A=B": ""}}})
    assert answer.json()["app"]["config"] == {"C": "z"}
    answer = await api.post(APPS, json={"app": {"name": "new", "config": {"": ""}}})
    assert (answer.status_code, message(answer)) == (400, "Invalid config: a name is empty")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{APPS}/a%00b", None),
        ("GET", f"{APPS}/a/routes/x%00", None),
        ("GET", f"{ROUTES}?image=%00", None),
        ("GET", f"{APPS}/a/calls?path=%00", None),
        ("PUT", f"{ROUTES}/x%00", {"route": {"image": "a/b"}}),
        ("PUT", f"{ROUTES}/x", {"route": {"image": "a/b\0"}}),
        ("PUT", f"{ROUTES}/x", {"route": {"image": "a/b\n"}}),
    ],
)
async def test_nul_is_refused_wherever_it_is(api: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    answer = await api.request(method, path, json=body)
    assert answer.status_code == 400
    assert message(answer) in ("Path malformed", "Invalid route Image: it must not contain control characters")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("config: {'': x}", "func.yaml:1: config: a name is empty"),
        ("config: {'A=B': x}", "func.yaml:1: config: name 'A=B' must not contain ="),
        ('config: {"A\\0": x}', r"func.yaml:1: config: name 'A\x00' must not contain NUL"),
        ('config: {A: "x\\0"}', "func.yaml:1: config.A: must be valid Unicode, without NUL"),
        ('config: {A: "\\ud800"}', "func.yaml:1: config.A: must be valid Unicode, without NUL"),
        ("headers: {X Y: x}", "func.yaml:1: headers: name 'X Y' must consist of"),
        ('headers: {X-A: "a\\r\\nb"}', "func.yaml:1: headers: a value of 'X-A' must not contain NUL or line breaks"),
        ('cmd: ["a\\0b"]', "func.yaml:1: cmd[0]: must be valid Unicode, without NUL"),
    ],
)
def test_a_functions_file_says_where_such_a_value_is(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "func.yaml").write_text(text + "\n")
    with pytest.raises(projects.ProjectError) as refused:
        projects.load(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}/{problem}")


def test_so_does_an_apps_file(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("name: a\nconfig: {'A=B': x}\n")
    with pytest.raises(projects.ProjectError, match=r"app\.yaml:2: config: name 'A=B' must not contain ="):
        load_app(tmp_path)


def test_the_command_refuses_it_before_it_asks_anybody(tmp_path: Path) -> None:
    cli = Cli("http://127.0.0.1:1", tmp_path)
    assert "name 'A=B' must not contain =" in cli.fails(2, "config", "app", "a", "A=B", "x")
    assert "a name is empty" in cli.fails(2, "apps", "config", "set", "a", "", "x")
    assert "not valid Unicode" in cli.fails(2, "apps", "create", "a", "--config", "A=\udcff")
    assert "name 'X Y' must consist of" in cli.fails(2, "routes", "create", "a", "/p", "a/b", "--headers", "X Y=1")
