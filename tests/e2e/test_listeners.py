"""The listeners of a node: calls on one, the API on another, everything on a Unix socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.impostor import UID, impostor_node
from tests.support.node import RunningNode, build_multi, running_node

from hearth.authorize.tokens import new_token

CONTROL = [
    *("/v1/apps", "/v1/runner/async", "/metrics", "/stats", "/docs", "/v1/openapi.json", "/v1/none", "/none"),
    *("/v2/", "/v2/apps", "/v2/e2e/x/tags/list", "/ui", "/ui/", "/ui/static/app.js", "/ui/data/me", "/ui/api/v1/apps"),
]


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, short: Path) -> Iterator[RunningNode]:
    """A node with three listeners, whose API wants a token."""
    data = tmp_path_factory.mktemp("split")
    image = build_multi(data, tmp_path_factory.mktemp("source") / "multi")
    places = {"FN_ADMIN_BIND": "127.0.0.1:0", "FN_SOCKET": str(short / "hearth.sock"), "FN_SOCKET_MODE": "0660"}
    with running_node("process", data, image, FN_AUTH="required", FN_RUNNER_TOKEN="runner", **places) as node:
        yield node


def token_of(node: RunningNode) -> str:
    return (node.data / "admin-token").read_text().strip()


def through(path: str) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://localhost")


def test_calls_are_served_here_and_the_api_there(split: RunningNode) -> None:
    headers = {"Authorization": f"Bearer {token_of(split)}"}
    with httpx.Client(base_url=split.told["api"], headers=headers) as admin:
        route = {"image": split.image, "format": "json", "path": "/multi"}
        assert admin.post("/v1/apps", json={"app": {"name": "e2e"}}).status_code == 200
        assert admin.post("/v1/apps/e2e/routes", json={"route": route}).status_code == 200
        for path in ("/metrics", "/stats", "/docs", "/v1/apps/e2e"):
            assert admin.get(path).status_code == 200, path
        assert admin.get("/v1/runner/async").status_code == 403
        assert admin.post("/r/e2e/multi", json={}).status_code == 200
    for shown in ({}, headers, {"Authorization": "Bearer runner"}):
        for path in CONTROL:
            answer = split.http.get(path, headers=shown)
            assert (answer.status_code, "FN_ADMIN_BIND" in answer.text) == (404, True), path
        assert split.http.get("/readyz", headers=shown).json() == {"ready": True}
        assert not [name for name in split.http.get("/version", headers=shown).headers if name.startswith("hearth")]
        assert split.http.post("/r/e2e/multi", json={}, headers=shown).status_code == 200


def test_everything_is_served_through_the_socket(split: RunningNode) -> None:
    path = split.told["socket"].removeprefix("unix:")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with through(path) as local:
        assert local.get("/v1/apps").status_code == 401
        assert local.get("/v1/apps", headers={"Authorization": f"Bearer {token_of(split)}"}).status_code == 200
        assert local.get("/healthz").status_code == 200


@pytest.mark.parametrize("listener", ["api", "socket"])
def test_the_command_uses_each_listener_without_being_given_a_token(
    split: RunningNode, tmp_path: Path, listener: str
) -> None:
    cli = Cli(split.told[listener], tmp_path)
    cli("apps", "create", f"app-{listener}")
    assert f"app-{listener}" in cli("apps", "list")
    cli("routes", "create", f"app-{listener}", "/f", split.image, "--format", "json")
    assert cli.run("call", f"app-{listener}", "/f", stdin=json.dumps({"say": "hi"})).returncode == 0


def test_the_command_says_so_if_the_api_is_elsewhere(split: RunningNode, tmp_path: Path) -> None:
    assert "FN_ADMIN_BIND" in Cli(split.url, tmp_path).fails(1, "apps", "list")


def test_a_node_that_ends_removes_its_socket(tmp_path: Path, short: Path) -> None:
    path = short / "api.sock"
    for _ in range(2):
        with running_node("process", tmp_path, "", FN_ADMIN_BIND=f"unix:{path}") as node:
            assert node.http.get("/v1/apps").status_code == 404
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with through(str(path)) as local:
                assert local.get("/v1/apps").status_code == 200, "FN_AUTH=loopback"
            node.process.kill()
            node.process.wait()
        assert path.is_socket(), "the next start replaces it"
    with running_node("process", tmp_path, "", FN_ADMIN_BIND=f"unix:{path}") as node:
        assert node.stop() == 0
    assert not path.exists()


def test_without_tokens_calls_may_come_from_anywhere_if_the_api_is_for_this_machine(tmp_path: Path) -> None:
    places = {"FN_BIND": "0.0.0.0", "FN_ADMIN_BIND": "127.0.0.1:0"}
    with running_node("process", tmp_path, "", **places) as node:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own_address = probe.getsockname()[0]
        outside = node.url.replace("127.0.0.1", own_address)
        assert httpx.post(f"{outside}/r/none/x").status_code == 404
        assert httpx.get(f"{outside}/readyz").json() == {"ready": True}
        assert httpx.get(f"{outside}/v1/apps").status_code == 404
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{node.told['api'].replace('127.0.0.1', own_address)}/v1/apps")
        assert httpx.get(f"{node.told['api']}/v1/apps").status_code == 200


def test_who_passes_for_a_node_at_a_socket_gets_no_token(short: Path) -> None:
    secret, look_alike = short / "admin-token", short / "look-alike"
    secret.write_text(token := new_token())
    secret.chmod(0o600)
    look_alike.mkdir()
    with impostor_node(look_alike, short / "seen", path=look_alike / "s") as url:
        (look_alike / "admin-token").symlink_to(secret)
        os.chown(look_alike, UID, UID)
        assert "admin-token: belongs to user 0, not to user" in Cli(url, short).fails(1, "apps", "list")
    seen = (short / "seen").read_text()
    assert "GET /v1/apps" in seen
    assert token not in seen


def test_a_program_that_locks_nothing_gets_no_token(split: RunningNode, short: Path) -> None:
    path = short / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        other.settimeout(30)
        from hearth.cli import local_server

        assert local_server.find(f"unix:{path}") is None
        found = local_server.find(split.told["socket"])
        assert found is not None
        assert found.token() == token_of(split)
