"""Who may talk to a node that runs, and whom the command trusts with a token."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support import impostor
from tests.support.answering import answering
from tests.support.cli import Cli
from tests.support.impostor import impostor_node
from tests.support.node import HEARTH, RunningNode, running_node
from tests.support.raw_http import RawClient
from tests.support.servers import free_port

from hearth.authorize.tokens import is_token, new_token
from hearth.cli import local_server
from hearth.cli.output import CommandError
from hearth.settings import environment

OTHER_ADDRESS = ("192.0.2.1", 9)
OPEN = "FN_AUTH=off: everybody who reaches this node controls it"


def token_of(node: RunningNode) -> str:
    return (node.data / "admin-token").read_text().strip()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that wants a token."""
    with running_node("process", tmp_path_factory.mktemp("locked"), "", FN_AUTH="required") as node:
        yield node


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node as it is by default."""
    with running_node("process", tmp_path_factory.mktemp("default"), "", FN_LOG_LEVEL="debug") as node:
        yield node


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user reaches."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# -- where a node listens ---------------------------------------------------------------------------------------------


def test_by_default_only_this_machine_reaches_a_node(default: RunningNode) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(OTHER_ADDRESS)
        own_address = probe.getsockname()[0]
    assert default.http.get("/v1/apps").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(default.url.replace("127.0.0.1", own_address))


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "", "192.0.2.1", "example.com"])
@pytest.mark.parametrize("command", [["start"], ["start", "--nodes", "2"]], ids=" ".join)
def test_a_node_without_tokens_refuses_to_listen_for_others(tmp_path: Path, bind: str, command: list[str]) -> None:
    variables = environment(FN_DATA_DIR=str(tmp_path), FN_PORT="0", FN_DRIVER="process", FN_BIND=bind)
    done = subprocess.run([HEARTH, *command], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hearth: ")]
    assert line.startswith(f"hearth: FN_BIND={bind}: ")
    assert "FN_AUTH=required" in line
    assert "FN_AUTH=off" in line
    assert not (tmp_path / "fn.db").exists()


def test_an_open_node_says_so_wherever_somebody_looks(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "", FN_AUTH="off") as node:
        assert node.http.get("/v1/apps").status_code == 200
        assert OPEN in node.http.get("/readyz").json()["warnings"]
        assert OPEN in (tmp_path / "server.log").read_text()
        doctor = Cli("", tmp_path, FN_AUTH="off", FN_DATA_DIR=str(tmp_path), FN_DRIVER="process", FN_PORT="0")
        findings = json.loads(doctor.run("doctor", "-o", "json").stdout)
        (access,) = [finding for finding in findings if finding["check"] == "access"]
        assert (access["status"], "FN_AUTH=required" in access["advice"]) == ("warn", True)


# -- a token is required ----------------------------------------------------------------------------------------------


def test_strangers_learn_the_version_and_the_readiness_and_nothing_else(locked: RunningNode) -> None:
    version = locked.http.get("/version")
    assert version.json() == {"version": "0.3.753"}
    assert not [name for name in version.headers if name.startswith("hearth")]
    assert locked.http.get("/readyz").json() == {"ready": True}
    for path in ("/metrics", "/stats", "/docs", "/v1/openapi.json", "/v1/apps", "/v1/none", "/none"):
        answer = locked.http.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    assert locked.http.post("/r/none/x").status_code == 404, "calls are open"


def test_the_token_that_the_first_start_made_opens_everything(locked: RunningNode) -> None:
    file = locked.data / "admin-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = token_of(locked)
    assert is_token(token)
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/metrics", "/stats", "/docs", "/v1/apps"):
        assert locked.http.get(path, headers=headers).status_code == 200, path
    assert "driver" in locked.http.get("/readyz", headers=headers).json()
    assert locked.http.get("/version", headers=headers).headers["hearth-driver"] == "process"
    assert token not in (locked.data / "server.log").read_text()


def test_a_token_of_the_settings_wins_and_a_new_one_is_logged_if_that_is_asked_for(tmp_path: Path) -> None:
    logged = {"FN_AUTH": "required", "FN_LOG_ADMIN_TOKEN": "true"}
    with running_node("process", tmp_path, "", **logged) as node:
        token = token_of(node)
        assert (tmp_path / "server.log").read_text().count(token) == 1
    with running_node("process", tmp_path, "", **logged) as node:
        assert token_of(node) == token
        assert token not in (tmp_path / "server.log").read_text(), "it is not new"
    with running_node("process", tmp_path, "", FN_ADMIN_TOKEN="token-of-the-operator", **logged) as node:
        for shown, status in (("token-of-the-operator", 200), (token, 401)):
            answer = node.http.get("/v1/apps", headers={"Authorization": f"Bearer {shown}"})
            assert answer.status_code == status
    assert "token-of-the-operator" not in (tmp_path / "server.log").read_text()


def test_wrong_tokens_are_never_logged(locked: RunningNode) -> None:
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(base_url=locked.url, transport=elsewhere) as stranger:
        guesses = [{"Authorization": f"Bearer guess-{number}"} for number in range(15)]
        assert [stranger.get("/v1/apps", headers=guess).status_code for guess in guesses] == [401] * 10 + [429] * 5
    log = (locked.data / "server.log").read_text()
    assert "wrong token" in log
    assert "guess-" not in log
    assert locked.http.get("/v1/apps", headers={"Authorization": f"Bearer {token_of(locked)}"}).status_code == 200


def test_a_client_does_not_choose_the_address_that_it_is_known_by(tmp_path: Path) -> None:
    """What a peer may do depends on its address; so no header stands for it, whatever other servers let one set."""
    with running_node("process", tmp_path, "", FN_AUTH="required", FORWARDED_ALLOW_IPS="*") as node:
        headers = {"Authorization": "Bearer wrong-token", "X-Forwarded-For": "192.0.2.77"}
        assert node.http.get("/v1/apps", headers=headers).status_code == 401
    log = (tmp_path / "server.log").read_text()
    assert "192.0.2.77" not in log
    assert 'msg="wrong token" address=127.0.0.1' in log


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_command_needs_no_token_on_the_nodes_machine(locked: RunningNode, tmp_path: Path, name: str) -> None:
    cli = Cli(locked.url.replace("127.0.0.1", name), tmp_path)
    app = name.replace(".", "-")
    cli("apps", "create", app)
    assert app in cli("apps", "list")
    cli("init", "f", cwd=tmp_path)
    cli("deploy", "--app", app, cwd=tmp_path / "f")
    assert json.loads(cli("invoke", app, "/f")) == {"message": "Hello World"}
    assert cli("test", "--remote", app, "/f", cwd=tmp_path / "f").endswith("2 passed, 0 failed, 0 skipped\n")


def test_a_token_of_the_environment_is_the_only_one_that_is_tried(locked: RunningNode, tmp_path: Path) -> None:
    cli = Cli(locked.url, tmp_path)
    assert "set FN_TOKEN to a token of this server" in cli.fails(1, "apps", "list", FN_TOKEN="wrong-token")
    assert "wrong-token" not in cli.fails(1, "apps", "list", FN_TOKEN="wrong-token")
    cli("apps", "list", FN_TOKEN=token_of(locked))


def test_a_token_file_that_changes_counts_from_the_next_start(tmp_path: Path) -> None:
    other = new_token()

    def statuses(node: RunningNode, *tokens: str) -> list[int]:
        shown = [{"Authorization": f"Bearer {token}"} for token in tokens]
        return [node.http.get("/v1/apps", headers=headers).status_code for headers in shown]

    with running_node("process", tmp_path, "", FN_AUTH="required") as node:
        cli, file, first = Cli(node.url, tmp_path), node.data / "admin-token", token_of(node)
        file.rename(tmp_path / "kept")
        assert "set FN_TOKEN to a token of this server" in cli.fails(1, "apps", "list")
        assert statuses(node, first) == [200], "a node that runs knows its token"
        file.touch(0o600)
        file.write_text("no token")
        assert f"{file}: contains no token; remove it" in cli.fails(1, "apps", "list")
        file.write_text(other)
        assert "set FN_TOKEN to a token of this server" in cli.fails(1, "apps", "list")
        assert statuses(node, first, other) == [200, 401]
        cli("apps", "list", FN_TOKEN=first)
    with running_node("process", tmp_path, "", FN_AUTH="required") as node:
        assert token_of(node) == other
        assert statuses(node, first, other) == [401, 200]
        Cli(node.url, tmp_path)("apps", "list")


def test_a_deploy_without_a_token_is_refused_before_anything_is_built(locked: RunningNode, tmp_path: Path) -> None:
    cli = Cli(locked.url, tmp_path)
    cli("init", "f", cwd=tmp_path)
    before = (tmp_path / "f" / "func.yaml").read_text()
    refusal = cli.fails(1, "deploy", "--app", "refused", cwd=tmp_path / "f", FN_TOKEN="wrong-token")
    assert "set FN_TOKEN to a token of this server" in refusal
    assert (tmp_path / "f" / "func.yaml").read_text() == before


def test_who_takes_the_port_after_a_node_has_ended_gets_no_token(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "", FN_AUTH="required") as node:
        port = httpx.URL(node.url).port
    assert port
    assert str(port) in (tmp_path / "hearth.lock").read_text(), "what was noted is still there"
    with answering(port) as hostile:
        hostile.status = 401
        hostile.body = {"error": {"message": "who are you?"}}
        assert "who are you?" in Cli(node.url, tmp_path).fails(1, "apps", "list", FN_DATA_DIR=str(tmp_path))
    assert hostile.requests
    assert hostile.tokens == []


def test_who_takes_the_port_between_two_requests_gets_no_token(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "", FN_AUTH="required") as node:
        server = local_server.find(node.url)
        assert server is not None
        assert (server.data, server.token()) == (tmp_path, token_of(node))
        with httpx.Client(base_url=node.url) as http:
            assert http.get("/version", extensions={"trace": server.check}).status_code == 200
    headers = {"Authorization": f"Bearer {server.token()}"}
    with answering(server.port) as hostile, httpx.Client(base_url=node.url, headers=headers) as http:
        with pytest.raises(CommandError, match="another program has taken the node's place"):
            http.get("/version", extensions={"trace": server.check})
        assert hostile.requests == hostile.tokens == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}", "http://192.0.2.1:{port}", "http://localhost.example:{port}"]
)
def test_what_is_no_node_of_this_machine_is_not_taken_for_one(tmp_path: Path, url: str) -> None:
    (tmp_path / "hearth.lock").write_text("process 1")
    with (tmp_path / "hearth.lock").open() as _, answering() as server:
        assert local_server.find(url.format(port=server.server_address[1])) is None
    assert local_server.find(url.format(port=free_port())) is None


def test_another_user_who_passes_for_a_node_gets_no_token_of_a_third_one(reachable: Path) -> None:
    """Root sees the lock that a hostile program holds on a folder of its own. Its token is a link to a node's."""
    secret, look_alike = reachable / "admin-token", reachable / "look-alike"
    secret.write_text(token := new_token())
    secret.chmod(0o600)
    look_alike.mkdir()
    (look_alike / "admin-token").symlink_to(secret)
    with impostor_node(look_alike, reachable / "seen") as url:
        assert "admin-token: belongs to user 0, not to user" in Cli(url, reachable).fails(1, "apps", "list")
    seen = (reachable / "seen").read_text()
    assert "GET /v1/apps" in seen
    assert "authorization" not in seen.lower()
    assert token not in seen


def test_the_lock_of_a_folder_of_another_user_proves_nothing(reachable: Path) -> None:
    folder = reachable / "open"
    folder.mkdir(mode=0o777)
    (folder / "hearth.lock").touch()
    (folder / "hearth.lock").chmod(0o666)
    with impostor_node(folder, reachable / "seen") as url:
        found = local_server.find(url)
        assert found is None, "the lock is root's, the folder is the hostile user's"
        folder.chmod(0o777)
        os.chown(folder, 0, 0)
        os.chown(folder / "hearth.lock", impostor.UID, impostor.UID)
        assert local_server.find(url) is None, "the folder is root's"
        os.chown(folder, impostor.UID, impostor.UID)
        found = local_server.find(url)
        assert found is not None, "both are its own"
        assert (found.data, found.owner) == (folder, impostor.UID)


def test_a_proxy_of_this_machine_is_not_on_the_way_to_its_node(locked: RunningNode, tmp_path: Path) -> None:
    with answering() as proxy:
        cli = Cli(locked.url, tmp_path, HTTP_PROXY=proxy.url, http_proxy=proxy.url, ALL_PROXY=proxy.url)
        cli("apps", "create", "proxied")
        assert "proxied" in cli("apps", "list", FN_TOKEN=token_of(locked))
        assert proxy.requests == proxy.tokens == []
        server = local_server.find(locked.url)
        assert server is not None
        with httpx.Client(proxy=proxy.url) as http, pytest.raises(CommandError, match="no token was sent"):
            http.get(f"{locked.url}/version", extensions={"trace": server.check})
        assert proxy.requests == []


def test_a_token_that_others_can_read_on_its_way_is_warned_of(tmp_path: Path) -> None:
    with answering() as proxy:
        cli = Cli("http://functions.example", tmp_path, HTTP_PROXY=proxy.url, FN_TOKEN="token-1234")
        done = cli.run("apps", "list")
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert "the token is sent to http://functions.example unencrypted; use https://" in done.stderr
        assert proxy.tokens == ["Bearer token-1234"]
        assert cli.run("apps", "list", FN_TOKEN="").stderr == ""
        assert Cli(proxy.url, tmp_path, FN_TOKEN="token-1234").run("apps", "list").stderr == "", "nobody is on the way"


# -- web pages --------------------------------------------------------------------------------------------------------

CHANGE = '{"route":{"image":"a/b"}}'
CREATE = '{"route":{"path":"/evil","image":"a/b"}}'


@pytest.mark.parametrize(
    "lines",
    [
        "Host: localhost\r\nOrigin: https://evil.example\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: evil.example\r\nOrigin: http://evil.example\r\n",
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
    ],
)
def test_a_foreign_page_makes_no_route(default: RunningNode, lines: str) -> None:
    with RawClient(default.url) as raw:
        raw.send(
            f"POST /v1/apps/evil/routes HTTP/1.1\r\n{lines}Content-Type: text/plain\r\nContent-Length: {len(CREATE)}"
            f"\r\n\r\n{CREATE}"
        )
        answer = raw.answer()
    assert answer
    assert answer.status == 403
    assert default.http.get("/v1/apps/evil").status_code == 404


def test_programs_send_what_they_always_sent(default: RunningNode) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        with RawClient(default.url) as raw:
            raw.send(
                f"PUT /v1/apps/tools/routes/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(CHANGE)}\r\n\r\n{CHANGE}"
            )
            answer = raw.answer("PUT")
        assert answer
        assert answer.status == 200
    with RawClient(default.url) as raw:
        raw.send("GET /v1/apps HTTP/1.0\r\n\r\n")
        answer = raw.answer()
    assert answer
    assert answer.status == 200, "without a Host: no browser"
