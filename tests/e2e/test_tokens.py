"""Tokens on whole nodes: created, stored and revoked by the command."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.node import RunningNode, running_node

from hearth.authorize.tokens import is_token

#: Seconds after which a node must refuse what another one has revoked, and some for a slow machine.
REVOKED_S = 5 + 10


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that wants a token."""
    with running_node("process", tmp_path_factory.mktemp("tokens"), "", FN_AUTH="required") as running:
        yield running


@pytest.fixture
def admin(node: RunningNode, tmp_path: Path) -> Cli:
    """The command of an administrator."""
    return Cli(node.url, tmp_path, FN_TOKEN=(node.data / "admin-token").read_text().strip())


def status(node: RunningNode, token: str, path: str = "/v1/apps", method: str = "GET") -> int:
    return node.http.request(method, path, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_is_created_used_listed_and_revoked(node: RunningNode, admin: Cli) -> None:
    done = admin.run("tokens", "create", "ci", "--role", "deployer", "--app", "mine", "--expires", "30d")
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip()
    assert is_token(token)
    assert (status(node, token), status(node, token, "/v1/apps/other")) == (200, 404)
    assert status(node, token, "/v1/tokens") == 403
    (listed,) = json.loads(admin.run("tokens", "list", "-o", "json").stdout)
    assert (listed["name"], listed["role"], listed["apps"]) == ("ci", "deployer", ["mine"])
    assert listed["last_used_at"].endswith(":00:00.000Z")
    shown = admin.run("tokens", "list").stdout
    assert (listed["id"] in shown, token in shown) == (True, False)
    assert admin.run("tokens", "revoke", listed["id"], "-f").returncode == 0
    assert status(node, token) == 401
    assert admin.run("tokens", "list").stdout.count("\n") == 1
    assert token not in (node.data / "server.log").read_text()


def test_a_token_that_is_stored_for_a_server_is_sent_to_that_server_only(
    node: RunningNode, admin: Cli, tmp_path: Path
) -> None:
    token = admin.run("tokens", "create", "me", "--role", "viewer").stdout.strip()
    home = tmp_path / "home"
    home.mkdir()
    mine = Cli(node.url, home)
    refused = mine.run("login", stdin="wrong-token\n")
    assert (refused.returncode, "hearth login" in refused.stderr) == (1, True)
    assert not (home / ".fn").exists()

    done = mine.run("login", stdin=f"{token}\n")
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    file = home / ".fn" / "hearth-tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert mine.run("apps", "list").returncode == 0
    denied = mine.run("apps", "create", "x")
    assert (denied.returncode, "role viewer" in denied.stderr) == (1, True)
    assert Cli(node.url, home, FN_TOKEN="wrong-token").run("apps", "list").returncode == 1, "FN_TOKEN comes first"
    other = Cli(node.url.replace("127.0.0.1", "localhost"), home)
    assert json.loads(file.read_text()) == {node.url: token}
    assert other.run("tokens", "list").returncode == 0, "the token of the data folder, which belongs to this user"

    file.chmod(0o644)
    refused = mine.run("apps", "list")
    assert (refused.returncode, "chmod 600" in refused.stderr) == (1, True)
    file.chmod(0o600)
    assert mine.run("logout").returncode == 0
    assert mine.run("logout").returncode == 1
    assert json.loads(file.read_text()) == {}


def test_another_node_of_the_database_refuses_a_revoked_token_within_seconds(
    node: RunningNode, admin: Cli, tmp_path: Path
) -> None:
    shared = {"FN_DB_URL": f"sqlite3://{node.data}/fn.db", "FN_MQ_URL": "memory://", "FN_ADMIN_TOKEN": "x" * 20}
    with running_node("process", tmp_path, "", FN_AUTH="required", **shared) as other:
        token = admin.run("tokens", "create", "two", "--role", "viewer").stdout.strip()
        assert (status(node, token), status(other, token)) == (200, 200)
        (listed,) = [
            one for one in json.loads(admin.run("tokens", "list", "-o", "json").stdout) if one["name"] == "two"
        ]
        assert admin.run("tokens", "revoke", listed["id"], "-f").returncode == 0
        assert status(node, token) == 401
        end = time.monotonic() + REVOKED_S
        while status(other, token) != httpx.codes.UNAUTHORIZED:
            assert time.monotonic() < end
