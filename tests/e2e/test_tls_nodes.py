"""Nodes with TLS: the command, a runner, a new certificate, and what an operator sees."""

from __future__ import annotations

import datetime as dt
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.fleet import QUICK, RUNNER_TOKEN
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.servers import free_port
from tests.support.tls import HOST, Authority
from tests.support.waiting import until

from hearth.settings import environment

ROOT = Path(__file__).parents[2]
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RunningNode]:
    """A node whose API wants a client certificate and a token, and whose calls want neither."""
    data = tmp_path_factory.mktemp("node")
    image = build_multi(data, tmp_path_factory.mktemp("source") / "multi")
    cert, key = authority.issue()
    variables = {
        "FN_TLS_CERT": str(cert),
        "FN_TLS_KEY": str(key),
        "FN_TLS_CLIENT_CA": str(authority.ca),
        "FN_TLS_CLIENT_AUTH": "admin",
        "FN_ADMIN_BIND": f"{HOST}:0",
        "FN_AUTH": "required",
        "FN_RUNNER_TOKEN": RUNNER_TOKEN,
    }
    with running_node("process", data, image, **variables) as running:
        yield running


@pytest.fixture(scope="module")
def admin(node: RunningNode, authority: Authority) -> Iterator[httpx.Client]:
    """A client of the API."""
    headers = {"Authorization": f"Bearer {(node.data / 'admin-token').read_text().strip()}"}
    context = authority.client(*authority.issue("client", "me"))
    with httpx.Client(base_url=node.told["api"], verify=context, headers=headers, timeout=60) as client:
        yield client


def options(authority: Authority, name: str = "client") -> dict[str, str]:
    cert, key = authority.issue(name, "me")
    return {"FN_TLS_CA": str(authority.ca), "FN_TLS_CLIENT_CERT": str(cert), "FN_TLS_CLIENT_KEY": str(key)}


def serial(url: str, authority: Authority, shown: Mapping[str, str] | None = None) -> str:
    context = authority.client()
    if shown is not None:
        context = authority.client(Path(shown["FN_TLS_CLIENT_CERT"]), Path(shown["FN_TLS_CLIENT_KEY"]))
    host, _, port = url.removeprefix("https://").partition(":")
    with (
        socket.create_connection((host, int(port)), 60) as raw,
        context.wrap_socket(raw, server_hostname=host) as session,
    ):
        found = session.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def test_the_command_verifies_the_node_and_shows_its_certificate(
    node: RunningNode, authority: Authority, tmp_path: Path
) -> None:
    assert node.told["api"].startswith("https://")
    cli = Cli(node.told["api"], tmp_path, **options(authority))
    cli("apps", "create", "e2e")
    cli("routes", "create", "e2e", "/multi", node.image, "--format", "json")
    assert cli.run("call", "e2e", "/multi", stdin="{}").returncode == 0
    nobody = Cli(node.told["api"], tmp_path, FN_TLS_CA=str(authority.ca))
    assert "--tls-cert" in nobody.fails(1, "apps", "list")
    stranger = options(Authority(tmp_path / "stranger"))
    untrusting = Cli(node.told["api"], tmp_path, **stranger)
    assert "its certificate is not trusted" in untrusting.fails(1, "apps", "list")
    assert "its certificate is not trusted" in Cli(node.told["api"], tmp_path).fails(1, "apps", "list")
    assert "--tls-ca" in Cli(node.told["api"], tmp_path, FN_TLS_CA=str(tmp_path / "no")).fails(1, "apps", "list")
    plain = Cli(node.told["api"].replace("https", "http"), tmp_path, FN_TOKEN="secret")
    assert "secret" not in plain.fails(1, "apps", "list")


def test_calls_need_no_certificate_and_see_the_scheme(
    node: RunningNode, admin: httpx.Client, authority: Authority
) -> None:
    route = {"image": node.image, "format": "json"}
    assert admin.put("/v1/apps/e2e/routes/scheme", json={"route": route}).status_code == 200
    with httpx.Client(base_url=node.url, verify=authority.client(), timeout=60) as caller:
        answer = caller.post("/r/e2e/scheme", json={"tell": "request_url"})
        assert answer.status_code == 200, answer.text
        assert caller.get("/v1/apps").status_code == 404
    call = admin.get(f"/v1/apps/e2e/calls/{answer.headers['fn_call_id']}").json()["call"]
    assert call["status"] == "success"


def test_a_new_certificate_is_read_when_the_node_is_told_so(
    node: RunningNode, admin: httpx.Client, authority: Authority
) -> None:
    before = serial(node.url, authority)
    authority.issue(until=(soon := dt.datetime.now(dt.UTC) + 3 * DAY))
    node.process.send_signal(signal.SIGHUP)
    assert until(lambda: serial(node.url, authority) != before)
    assert ["expires at" in text for text in admin.get("/readyz").json()["warnings"]] == [True]
    (line,) = [
        line
        for line in admin.get("/metrics").text.splitlines()
        if line.startswith("hearth_tls_certificate_expiry_timestamp_seconds{")
    ]
    assert float(line.rpartition(" ")[2]) == int(soon.timestamp())

    known = serial(node.url, authority)
    (authority.folder / "node.pem").write_text("nothing")
    node.process.send_signal(signal.SIGHUP)
    assert until(lambda: any("is not used" in text for text in admin.get("/readyz").json().get("warnings", [])))
    assert serial(node.url, authority) == known
    assert "new TLS certificate is not used, the old one stays" in (node.data / "server.log").read_text()

    authority.issue()
    node.process.send_signal(signal.SIGHUP)
    assert until(lambda: "warnings" not in admin.get("/readyz").json())
    assert serial(node.url, authority) != known
    assert admin.get("/v1/apps").status_code == 200, "a kept connection goes on"


def test_a_runner_speaks_tls_to_its_api_node(authority: Authority, tmp_path: Path) -> None:
    """It pulls what it runs, fetches accepted calls, and follows a new certificate of the API node."""
    (tmp_path / "api").mkdir()
    cert, key = authority.issue("api")
    tls = {"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key), "FN_TLS_CLIENT_CA": str(authority.ca)}
    with running_node("process", tmp_path / "api", "", FN_NODE_TYPE="api", **QUICK, **tls) as api:
        for name, shown, is_ready in (
            ("good", options(authority), True),
            ("untrusting", options(Authority(tmp_path / "stranger")), False),
            ("anonymous", {"FN_TLS_CA": str(authority.ca)}, False),
        ):
            (tmp_path / name).mkdir()
            variables = {"FN_NODE_TYPE": "runner", "FN_RUNNER_API_URL": api.url, **QUICK, **shown}
            with running_node("process", tmp_path / name, "", **variables) as runner:
                if is_ready:
                    assert until(lambda runner=runner: runner.http.get("/readyz").status_code == 200)  # type: ignore[misc]
                    cli = Cli(api.url, tmp_path, **shown)
                    cli("init", "greet", cwd=tmp_path)
                    cli("deploy", "--app", "e2e", "-w", tmp_path / "greet")
                    calls_over_tls(runner, cli, "before")
                    assert "pulling image" in (tmp_path / name / "server.log").read_text()
                    before = serial(api.url, authority, shown)
                    authority.issue("api")
                    api.process.send_signal(signal.SIGHUP)
                    assert until(lambda: serial(api.url, authority, shown) != before)  # noqa: B023  # called at once
                    calls_over_tls(runner, cli, "after")
                else:
                    assert runner.http.get("/readyz").status_code == 503
                    assert runner.http.post("/r/e2e/before", json={}).status_code >= 500


def calls_over_tls(runner: RunningNode, cli: Cli, name: str) -> None:
    """A sync and an async call of new routes, which a runner learns from its API node."""
    greet = cli.json("routes", "inspect", "e2e", "/greet")
    for path, kind in ((f"/{name}", "sync"), (f"/{name}-later", "async")):
        cli("routes", "create", "e2e", path, greet["image"], "--format", greet["format"], "--type", kind)
    assert runner.http.post(f"/r/e2e/{name}", json={}).json() == {"message": "Hello World"}
    accepted = runner.http.post(f"/r/e2e/{name}-later", json={})
    assert accepted.status_code == 202, accepted.text
    call_id = accepted.json()["call_id"]
    assert until(lambda: "success" in cli("calls", "get", "e2e", call_id))


@pytest.mark.parametrize("kind", ["plain", "tls", "mutual"])
def test_the_health_check_of_the_image_reaches_its_node(authority: Authority, tmp_path: Path, kind: str) -> None:
    cert, key = authority.issue("health", "functions.example")
    tls = {} if kind == "plain" else {"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key)}
    if kind == "mutual":
        tls["FN_TLS_CLIENT_CA"] = str(authority.ca)
    port = free_port()
    command = [sys.executable, "-IS", str(ROOT / "deploy" / "healthcheck.py")]
    variables = environment(FN_PORT=str(port), **tls)
    with running_node("process", tmp_path, "", FN_PORT=str(port), **tls):
        assert subprocess.run(command, env=variables).returncode == 0
    assert subprocess.run(command, env=variables, stderr=subprocess.DEVNULL).returncode != 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"FN_TLS_KEY": ""}, "FN_TLS_KEY: missing"),
        ({"FN_TLS_CERT": ""}, "FN_TLS_CERT: missing"),
        ({"FN_TLS_CERT": "/dev/null"}, "FN_TLS_CERT, FN_TLS_KEY: /dev/null: no certificate in PEM"),
        ({"FN_TLS_CERT": "/none"}, "FN_TLS_CERT, FN_TLS_KEY: /none: No such file or directory"),
        ({"FN_TLS_CERT": "", "FN_TLS_KEY": "", "FN_TLS_CLIENT_CA": "/x"}, "FN_TLS_CLIENT_CA=/x"),
        ({"FN_TLS_CLIENT_CA": "/dev/null"}, "/dev/null: no certificates of authorities in PEM"),
        ({"FN_TLS_CLIENT_CA": "/x", "FN_TLS_CLIENT_AUTH": "admin"}, "FN_TLS_CLIENT_AUTH=admin"),
    ],
)
def test_settings_that_do_not_fit_keep_a_node_from_starting(
    authority: Authority, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    cert, key = authority.issue("fits")
    variables = {"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key), **changes}
    cli = Cli("", tmp_path, FN_DATA_DIR=str(tmp_path / "data"), FN_PORT="0", FN_DRIVER="process", **variables)
    assert said in cli.fails(1, "start")


@pytest.mark.parametrize("name", ["FN_TLS_CERT", "FN_TLS_CLIENT_CA"])
def test_several_nodes_of_one_machine_refuse_tls(authority: Authority, tmp_path: Path, name: str) -> None:
    cert, key = authority.issue("several")
    variables = {"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key), "FN_TLS_CLIENT_CA": str(authority.ca)}
    if name == "FN_TLS_CLIENT_CA":
        del variables["FN_TLS_CERT"]
    cli = Cli("", tmp_path, FN_DATA_DIR=str(tmp_path / "data"), FN_PORT="0", FN_DRIVER="process", **variables)
    refusal = cli.fails(1, "start", "--nodes", "2")
    assert f"{name}={variables[name]}: --nodes listens on one address without TLS; unset it" in refusal


@pytest.mark.parametrize(
    ("days", "mode", "status", "found"),
    [(90, 0o600, "ok", "valid until"), (3, 0o600, "warn", "expires at"), (90, 0o644, "warn", "can read it")],
)
def test_the_doctor_looks_at_the_certificate(
    authority: Authority, tmp_path: Path, days: int, mode: int, status: str, found: str
) -> None:
    cert, key = authority.issue("doctor", until=dt.datetime.now(dt.UTC) + days * DAY)
    key.chmod(mode)
    variables = {"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key), "FN_DATA_DIR": str(tmp_path / "data")}
    findings = json.loads(
        Cli("", tmp_path, FN_PORT="0", FN_DRIVER="process", **variables).run("doctor", "-o", "json").stdout
    )
    (tls,) = [finding for finding in findings if finding["check"] == "tls"]
    assert (tls["status"], found in tls["found"]) == (status, True), tls
