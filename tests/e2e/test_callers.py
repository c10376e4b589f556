"""Callers of functions on whole nodes: tokens on a full node, on runners, and what the functions see."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.docker_images import python_image
from tests.support.fleet import Fleet, running_fleet
from tests.support.node import MULTI, RunningNode
from tests.support.oidc_provider import AUDIENCE, Provider, new_key, running_provider
from tests.support.tls import Authority
from tests.support.waiting import until

#: Seconds after which every node must refuse what was revoked, and some for a slow machine.
REVOKED_S = 5 + 10
ADMIN = "token-of-the-admin-1234"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def provider(authority: Authority) -> Iterator[Provider]:
    """The OpenID Connect issuer of both nodes."""
    with running_provider(authority) as running:
        yield running


@pytest.fixture(scope="module", params=["process", "docker"])
def fleet(
    request: pytest.FixtureRequest,
    provider: Provider,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """A full node and a runner of it, on each driver."""
    oidc: dict[str, Any] = {
        "FN_OIDC_ISSUER": provider.issuer,
        "FN_OIDC_CA": str(authority.ca),
        "FN_OIDC_AUDIENCE": AUDIENCE,
        "FN_OIDC_ROLES": "deploy=deployer,call=invoker,watch=viewer",
        "FN_OIDC_APPS_CLAIM": "apps",
    }
    folder, image = tmp_path_factory.mktemp("callers"), ""
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = python_image(MULTI)
    with running_fleet(folder, kind="full", driver=request.param, image=image, FN_ADMIN_TOKEN=ADMIN, **oidc) as running:
        yield running


@pytest.fixture(params=["full", "runner"])
def node(request: pytest.FixtureRequest, fleet: Fleet) -> RunningNode:
    """Each node that runs calls."""
    return fleet.api if request.param == "full" else fleet.runners[0]


def invoker(fleet: Fleet, name: str, *apps: str) -> dict[str, str]:
    """Create a token; return its id and value."""
    asked = {"token": {"name": name, "role": "invoker", "apps": list(apps)}}
    made: dict[str, str] = fleet.api.http.post("/v1/tokens", json=asked).json()["token"]
    return made


def call(node: RunningNode, path: str, token: str = "", **orders: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return node.http.post(path, json=orders, headers=headers)


def is_closed(node: RunningNode, path: str) -> bool:
    return call(node, path).status_code == 401


def is_open(node: RunningNode, path: str) -> bool:
    return call(node, path).status_code == 200


def test_a_token_opens_a_route_everywhere_until_it_is_revoked_or_reaches_no_further(fleet: Fleet) -> None:
    path = fleet.api.route("guarded", "http", auth="token")
    mine, others = invoker(fleet, "mine", "e2e"), invoker(fleet, "others", "other")
    for node in (fleet.api, fleet.runners[0]):
        assert call(node, path).status_code == 401
        assert call(node, path, others["value"]).status_code == 403
        assert call(node, path, "wrong").status_code == 401
        assert call(node, path, ADMIN, echo="x").text == "x"
        assert call(node, path, mine["value"], echo="x").text == "x"
    assert fleet.api.http.delete(f"/v1/tokens/{mine['id']}").status_code == 200
    assert call(fleet.api, path, mine["value"]).status_code == 401
    end = time.monotonic() + REVOKED_S
    while call(fleet.runners[0], path, mine["value"]).status_code != 401:
        assert time.monotonic() < end


def test_a_token_of_the_issuer_opens_the_routes_of_its_apps_and_no_function_sees_it(
    node: RunningNode, fleet: Fleet, provider: Provider
) -> None:
    path = fleet.api.route(f"issuer-{node.data.name}", "http", auth="token")
    assert until(lambda: call(node, path).status_code == 401)
    mine = provider.sign(roles=["call"], apps=["e2e"])
    for _ in range(2):  # verified, then known
        answer = call(node, path, mine, tell=True)
        assert answer.status_code == 200, answer.text
        assert "FN_APP_NAME" in answer.text
        assert mine not in answer.text
        assert "authorization" not in answer.text.lower()
    assert call(node, path, provider.sign(roles=["call"], apps=["other"])).status_code == 403
    assert call(node, path, provider.sign(roles=["watch"], apps=["e2e"])).status_code == 403
    for stranger in (provider.sign(new_key("first"), apps=["e2e"]), provider.sign(aud="other", apps=["e2e"])):
        assert call(node, path, stranger).status_code == 401


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("format_name", ["default", "http", "json"])
def test_no_function_sees_the_token(node: RunningNode, fleet: Fleet, format_name: str, kind: str) -> None:
    path = fleet.api.route(f"seen-{format_name}-{kind}", format_name, auth="token", type=kind)
    token = invoker(fleet, f"seen-{format_name}-{kind}")["value"]
    assert until(lambda: call(node, path).status_code == 401)
    answer = call(node, path, token, tell=True)
    if kind == "async":
        assert fleet.api.ended(answer)["status"] == "success"
        text = fleet.api.log(answer)
    else:
        text = answer.text
    assert "FN_APP_NAME" in text or "env" in text
    assert token not in text
    assert "authorization" not in text.lower()


def test_no_fn_sees_the_token_of_a_caller_neither_by_id_nor_through_a_trigger(node: RunningNode, fleet: Fleet) -> None:
    name = f"fns-{node.data.name}"
    app_id = fleet.api.http.post("/v2/apps", json={"name": name}).json()["id"]
    assert fleet.api.http.patch(f"/v1/apps/{name}", json={"app": {"auth": "token"}}).status_code == 200
    made = {"app_id": app_id, "name": "fn", "image": fleet.image, "memory": 128, "timeout": 30, "idle_timeout": 30}
    fn_id = fleet.api.http.post("/v2/fns", json=made).json()["id"]
    source = {"app_id": app_id, "fn_id": fn_id, "name": "t", "type": "http", "source": "/t"}
    assert fleet.api.http.post("/v2/triggers", json=source).status_code == 200
    token = invoker(fleet, name, name)["value"]
    for path in (f"/invoke/{fn_id}", f"/t/{name}/t"):
        assert until(functools.partial(is_closed, node, path))
        answer = call(node, path, token, tell=True)
        assert answer.status_code == 200, answer.text
        assert "FN_APP_NAME" in answer.text
        assert token not in answer.text
        assert "authorization" not in answer.text.lower()


def test_a_fn_and_its_trigger_are_closed_and_opened_whatever_their_app_says(node: RunningNode, fleet: Fleet) -> None:
    name = f"own-{node.data.name}"
    app_id = fleet.api.http.post("/v2/apps", json={"name": name}).json()["id"]
    made = {"app_id": app_id, "name": "fn", "image": fleet.image, "memory": 128, "timeout": 30, "idle_timeout": 30}
    fn_id = fleet.api.http.post("/v2/fns", json={**made, "annotations": {"hearth/auth": "token"}}).json()["id"]
    source = {"app_id": app_id, "fn_id": fn_id, "name": "t", "type": "http", "source": "/t"}
    assert fleet.api.http.post("/v2/triggers", json=source).status_code == 200
    paths = (f"/invoke/{fn_id}", f"/t/{name}/t")
    token = invoker(fleet, name, name)["value"]
    for path in paths:
        assert until(functools.partial(is_closed, node, path))
        assert call(node, path, token, echo="x").text == "x"
    assert fleet.api.http.patch(f"/v1/apps/{name}", json={"app": {"auth": "token"}}).status_code == 200
    changed = fleet.api.http.put(f"/v2/fns/{fn_id}", json={"annotations": {"hearth/auth": "open"}})
    assert changed.json()["annotations"]["hearth/auth"] == "open"
    for path in paths:
        assert until(functools.partial(is_open, node, path))
    assert fleet.api.http.put(f"/v2/fns/{fn_id}", json={"annotations": {"hearth/auth": ""}}).status_code == 200
    for path in paths:
        assert until(functools.partial(is_closed, node, path))


def test_an_app_and_a_change_close_routes_that_are_being_called(node: RunningNode, fleet: Fleet) -> None:
    path = fleet.api.route("changing", "http")
    assert until(lambda: call(node, path).status_code == 200)
    assert fleet.api.http.patch("/v1/apps/e2e", json={"app": {"auth": "token"}}).status_code == 200
    try:
        assert until(lambda: call(node, path).status_code == 401)
        assert call(node, path, ADMIN).status_code == 200
    finally:
        assert fleet.api.http.patch("/v1/apps/e2e", json={"app": {"auth": "default"}}).status_code == 200
    assert until(lambda: call(node, path).status_code == 200)


def test_a_webhook_is_served_when_its_signature_is_right(node: RunningNode, fleet: Fleet) -> None:
    assert fleet.api.http.put("/v1/apps/e2e/secrets/HOOK", json={"value": "the key"}).status_code == 200
    signature = {"style": "github", "secret": "HOOK"}
    path = fleet.api.route("hook", "http", auth="signed", signature=signature)
    body = json.dumps({"run": 'orders["echo"] = str(os.environ.get("HOOK"))'}).encode()
    good = {"X-Hub-Signature-256": f"sha256={hmac.new(b'the key', body, hashlib.sha256).hexdigest()}"}
    answer = node.http.post(path, content=body, headers=good)
    assert (answer.status_code, answer.text) == (200, "None"), "the key is not the function's"
    assert node.http.post(path, content=body + b" ", headers=good).status_code == 401
    assert call(node, path, ADMIN).status_code == 401
    assert fleet.api.http.delete("/v1/apps/e2e/secrets/HOOK").status_code == 200
    assert until(lambda: node.http.post(path, content=body, headers=good).status_code == 503)
    log = node.data / "server.log"
    assert until(lambda: "signatures cannot be checked" in log.read_text())
    assert "the key" not in log.read_text()


def test_the_command_sends_its_token_if_it_is_told_to(fleet: Fleet, tmp_path: Path) -> None:
    path = fleet.api.route("by-command", "http", auth="token")
    name = path.removeprefix("/r/e2e")
    cli = Cli(fleet.api.url, tmp_path, FN_TOKEN=ADMIN)
    refused = cli.run("invoke", "e2e", name, stdin="{}")
    assert (refused.returncode, "needs a valid token" in refused.stderr) == (1, True)
    done = cli.run("invoke", "e2e", name, "--auth", stdin='{"echo": "x"}')
    assert (done.returncode, done.stdout) == (0, "x")


def test_the_command_sets_and_removes_what_callers_show(fleet: Fleet, tmp_path: Path) -> None:
    path = fleet.api.route("set", "http").removeprefix("/r/e2e")
    cli = Cli(fleet.api.url, tmp_path, FN_TOKEN=ADMIN)
    assert fleet.api.http.put("/v1/apps/e2e/secrets/SET", json={"value": "key"}).status_code == 200

    def shown() -> dict[str, Any]:
        route = json.loads(cli.run("routes", "inspect", "e2e", path).stdout)
        return {name: route[name] for name in ("auth", "signature") if name in route}

    signed = ("--auth", "signed", "--signature", "stripe:SET:X-Mine", "--signature-tolerance", "60")
    assert cli.run("routes", "update", "e2e", path, *signed).returncode == 0
    signature = {"style": "stripe", "secret": "SET", "header": "X-Mine", "tolerance": 60}
    assert shown() == {"auth": "signed", "signature": signature}
    assert cli.run("routes", "update", "e2e", path, "--auth", "default").returncode == 0
    assert "auth" not in shown()
    for wrong in (("--signature", "stripe"), ("--signature-tolerance", "5")):
        assert cli.run("routes", "update", "e2e", path, *wrong).returncode == 2
    assert cli.run("apps", "update", "e2e", "--auth", "token").returncode == 0
    assert json.loads(cli.run("apps", "inspect", "e2e").stdout)["auth"] == "token"
    assert cli.run("apps", "update", "e2e", "--auth", "default").returncode == 0
