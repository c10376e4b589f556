"""A node that accepts the tokens of an OpenID Connect provider, and the provider, over HTTPS."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.oidc_provider import AUDIENCE, CLIENT, SECRET, Provider, new_key, running_provider
from tests.support.servers import free_port
from tests.support.tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def provider(authority: Authority) -> Iterator[Provider]:
    with running_provider(authority) as running:
        yield running


def variables(issuer: str, authority: Authority) -> dict[str, str]:
    roles = "operators=admin,deploy=deployer,watch=viewer"
    return {
        "FN_AUTH": "required",
        "FN_OIDC_ISSUER": issuer,
        "FN_OIDC_CA": str(authority.ca),
        "FN_OIDC_AUDIENCE": AUDIENCE,
        "FN_OIDC_ROLES": roles,
    }


@pytest.fixture(scope="module")
def node(provider: Provider, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp("node")
    with running_node("process", data, "", **variables(provider.issuer, authority)) as running:
        yield running


def token_of(provider: Provider, authority: Authority, **claims: object) -> str:
    """Ask the provider for a token, as a client of its own does."""
    provider.changes = claims
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    answer = httpx.post(f"{provider.issuer}/token", data=form, verify=authority.client())
    assert answer.status_code == 200
    return str(answer.json()["access_token"])


def ask(node: RunningNode, token: str, method: str = "GET", path: str = "/v1/apps", **options: object) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return node.http.request(method, path, headers=headers, **options).status_code  # type: ignore[arg-type]


def test_the_claims_of_a_token_decide_what_it_may_do(
    node: RunningNode, provider: Provider, authority: Authority
) -> None:
    deploy, watch, nobody = (token_of(provider, authority, roles=[role]) for role in ("deploy", "watch", "visitors"))
    app = {"app": {"name": "theirs"}}
    assert ask(node, watch, "POST", json=app) == 403
    assert ask(node, nobody, "POST", json=app) == 401
    assert ask(node, deploy, "POST", json=app) == 200
    assert ask(node, watch) == ask(node, deploy) == 200
    assert ask(node, watch, path="/metrics") == 200
    assert ask(node, deploy, path="/metrics") == 403
    assert ask(node, deploy, path="/v1/runner/async") == 403
    admin = token_of(provider, authority, roles=["operators"])
    assert ask(node, admin, "DELETE", "/v1/apps/theirs") == 200
    version = node.http.get("/version", headers={"Authorization": f"Bearer {watch}"})
    assert version.headers["hearth-driver"] == "process"


def test_tokens_of_others_are_refused_and_counted(node: RunningNode, provider: Provider, authority: Authority) -> None:
    elsewhere = httpx.HTTPTransport(local_address="127.0.0.8")
    with httpx.Client(base_url=node.url, transport=elsewhere) as stranger:
        forged = [provider.sign(new_key("first")), provider.sign(aud="other"), provider.sign(exp=1)] * 5
        guesses = [{"Authorization": f"Bearer {token}"} for token in forged]
        statuses = [stranger.get("/v1/apps", headers=guess).status_code for guess in guesses]
        assert statuses == [401] * 10 + [429] * 5
    assert ask(node, token_of(provider, authority)) == 200
    log = (node.data / "server.log").read_text()
    assert not [token for token in forged if token in log]


def test_the_command_takes_such_a_token(
    node: RunningNode, provider: Provider, authority: Authority, tmp_path: Path
) -> None:
    cli = Cli(node.url, tmp_path, FN_TOKEN=token_of(provider, authority))
    cli("apps", "create", "by-token")
    assert "by-token" in cli("apps", "list")


def test_a_provider_that_is_known_may_go_away(authority: Authority, tmp_path: Path) -> None:
    with contextlib.ExitStack() as node_stack:
        with running_provider(authority) as provider:
            node = node_stack.enter_context(
                running_node("process", tmp_path, "", **variables(provider.issuer, authority))
            )
            token = token_of(provider, authority)
            assert ask(node, token) == 200
        assert ask(node, token) == 200


def test_a_node_starts_without_its_provider_and_lets_none_of_its_tokens_in(
    authority: Authority, tmp_path: Path
) -> None:
    with running_provider(authority) as provider:
        token = token_of(provider, authority)
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image, **variables(provider.issuer, authority)) as node:
        node.http.headers["Authorization"] = f"Bearer {(tmp_path / 'admin-token').read_text().strip()}"
        closed, opened = node.route("closed", "http", auth="token"), node.route("opened", "http")
        headers = {"Authorization": f"Bearer {token}"}
        for method, path in (("GET", "/v1/apps"), ("POST", closed)):
            answer = node.http.request(method, path, headers=headers)
            assert answer.status_code == 503
            assert answer.json() == {"error": {"message": "Tokens of the OIDC issuer cannot be checked now"}}
            assert int(answer.headers["retry-after"]) > 0
        assert node.http.get("/readyz", headers=headers).json() == {"ready": True}
        # Nobody else depends on it.
        assert node.call(closed, echo="x").text == "x"
        assert node.http.post(opened, json={"echo": "x"}, headers=headers).text == "x"
        assert node.http.post(closed, json={}, headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("is_there", [True, False])
def test_the_doctor_asks_the_provider(provider: Provider, authority: Authority, tmp_path: Path, is_there: bool) -> None:
    issuer = provider.issuer if is_there else f"http://127.0.0.1:{free_port()}"
    cli = Cli("", tmp_path, FN_PORT="0", FN_DRIVER="process", FN_DATA_DIR=str(tmp_path), **variables(issuer, authority))
    findings = json.loads(cli.run("doctor", "-o", "json").stdout)
    (oidc,) = [finding for finding in findings if finding["check"] == "oidc"]
    assert oidc["status"] == ("ok" if is_there else "warn"), oidc
