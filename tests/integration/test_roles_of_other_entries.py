"""Roles of tokens of all apps, of app a and of app b: the registry, the runner API, the dashboard and calls.

The other entry points are in test_api_tokens.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from tests.support.clock import FakeClock
from tests.support.dashboard import DashboardNode, dashboard_node

from hearth.images.documents import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE
from hearth.images.layout import ImageStore
from hearth.models.principal import TOKEN_ROLES, Role
from hearth.server.api import Api
from hearth.server.registry.registry import Registry
from hearth.server.ui.data import Data

RUNNER: Final = "token-of-the-runners-1234"
#: The answer to a call that is admitted. The image of the fn does not exist.
ADMITTED: Final = {"/r/a/closed": 200, "/invoke/:fn": 404, "/t/a/s": 404}
#: Roles with the apps of their token. A runner reaches all apps.
HOLDERS: Final = [
    (role, apps) for role in TOKEN_ROLES for apps in ("", "a", "b") if role is not Role.RUNNER or not apps
]
LAYER: Final = b"a layer"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


MANIFEST: Final = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": LAYER_TYPE, "digest": digest_of(LAYER), "size": len(LAYER)}],
    }
).encode()


class World:
    """A node that asks for tokens, with the apps a and b, which ask callers for one, and a token for each holder."""

    def __init__(self, node: DashboardNode) -> None:
        self.node = node
        self.http = httpx.Client(base_url=node.url, timeout=60)
        for app in ("a", "b"):
            node.route(app, "/closed")
            node.route(app, "/open", auth="open")
            answer = node.http.patch(f"/v1/apps/{app}", json={"app": {"auth": "token"}})
            assert answer.status_code == 200, answer.text
        self.tokens = {(role, apps): node.token(f"{role} {apps}", role, *apps.split()) for role, apps in HOLDERS}
        app_id = node.http.get("/v1/apps/a").json()["app"]["id"]
        fn = node.http.post("/v2/fns", json={"app_id": app_id, "name": "fn", "image": "none"}).json()
        trigger = {"app_id": app_id, "fn_id": fn["id"], "name": "t", "type": "http", "source": "/s"}
        assert node.http.post("/v2/triggers", json=trigger).status_code == 200
        self.fn_id: str = fn["id"]

    def ask(self, method: str, path: str, holder: tuple[Role, str] | None, **fields: Any) -> httpx.Response:
        headers = dict(fields.pop("headers", {}))
        if holder is not None:
            headers["Authorization"] = f"Bearer {self.tokens[holder]}"
        with self.http.stream(method, path, headers=headers, **fields) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer.read()  # a stream of events has no end
            return answer

    def push(self) -> str:
        """Push an image to a/f again, and begin an upload; its name."""
        http = self.node.http
        for data in (b"{}", LAYER):
            answer = http.post("/v2/a/f/blobs/uploads/", params={"digest": digest_of(data)}, content=data)
            assert answer.status_code == 201, answer.text
        answer = http.put("/v2/a/f/manifests/1", content=MANIFEST, headers={"Content-Type": MANIFEST_TYPE})
        assert answer.status_code == 201, answer.text
        location: str = http.post("/v2/a/f/blobs/uploads/").headers["location"]
        return location.rpartition("/")[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with dashboard_node(tmp_path_factory.mktemp("roles"), auth="required", runner_token=RUNNER) as node:
        opened = World(node)
        with opened.http:
            yield opened


# -- the registry -----------------------------------------------------------------------------------------------------

#: Each entry point for the repository a/f, with its body and the status of one who may use it.
REGISTRY: Final[dict[tuple[str, str], tuple[bytes, int]]] = {
    ("GET", "/v2/"): (b"", 200),
    ("GET", "/v2/:app/manifests/:"): (b"", 200),
    ("HEAD", "/v2/:app/manifests/:"): (b"", 200),
    ("PUT", "/v2/:app/manifests/:"): (MANIFEST, 201),
    ("DELETE", "/v2/:app/manifests/:"): (b"", 202),
    ("GET", "/v2/:app/blobs/:"): (b"", 200),
    ("HEAD", "/v2/:app/blobs/:"): (b"", 200),
    ("DELETE", "/v2/:app/blobs/:"): (b"", 202),
    ("GET", "/v2/:app/tags/list"): (b"", 200),
    ("POST", "/v2/:app/blobs/uploads/"): (b"", 202),
    ("GET", "/v2/:app/blobs/uploads/:"): (b"", 204),
    ("PATCH", "/v2/:app/blobs/uploads/:"): (b"more", 202),
    ("PUT", "/v2/:app/blobs/uploads/:"): (b"more", 201),
    ("DELETE", "/v2/:app/blobs/uploads/:"): (b"", 204),
}


def registry_path(path: str, upload: str) -> str:
    items = {"manifests": "1", "blobs": digest_of(LAYER), "uploads": upload}
    kind = path.split("/")[-2]
    return path.replace("/:app", "/a/f").replace("/:", f"/{items.get(kind, '')}")


@pytest.mark.parametrize(("method", "path"), REGISTRY)
def test_each_role_reaches_its_entry_points_of_the_registry_and_its_apps_only(
    world: World, method: str, path: str
) -> None:
    body, done = REGISTRY[method, path]
    headers = {"Content-Type": MANIFEST_TYPE} if body is MANIFEST else {}
    upload = world.push()
    for role, apps in HOLDERS:
        url = registry_path(path, upload)
        query = {"digest": digest_of(b"more")} if (method, path.count("/")) == ("PUT", 5) else {}
        answer = world.ask(method, url, (role, apps), content=body, headers=headers, params=query)
        if ":app" in path and apps == "b":
            wanted = 404
        else:
            wanted = done if role in (Role.ADMIN, Role.DEPLOYER) else 403
        assert answer.status_code == wanted, f"{role} of {apps or 'all'}: {method} {url}: {answer.text}"
        if method != "HEAD" and wanted in (403, 404):
            (error,) = answer.json()["errors"]
            assert error["code"] == {403: "DENIED", 404: "NAME_UNKNOWN"}[wanted]
        if wanted == done and method not in ("GET", "HEAD"):
            upload = world.push()
    anonymous = world.ask(method, url, None, content=body, headers=headers)
    assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, 'Basic realm="hearth"')


# -- the API for runners ----------------------------------------------------------------------------------------------


class Everything:
    """Has each attribute."""

    def __getattr__(self, name: str) -> Any:
        return self


def served() -> set[tuple[str, str]]:
    """The entry points of the registry and of the API for runners."""
    parts: Any = Everything()
    node = Api(None, FakeClock(), dict, registry=Registry(ImageStore(Path())), runners=parts, images=parts, nodes=parts)
    return {entry for entry in node.entry_points() if entry[1].startswith(("/v2/", "/v1/runner/"))}


#: What a runner gets that sends nothing useful: the query, the status and the message.
_READS: Final = {
    ("GET", "/v1/runner/async"): ("?wait_s=0", 200, ""),
    ("GET", "/v1/runner/ready"): ("", 200, ""),
    ("GET", "/v1/runner/images"): ("?image=none", 404, "Image not found"),
    ("GET", "/v1/runner/blobs"): ("?digest=none", 404, "Image not found"),
}
RUNNER_API: Final = {
    entry: _READS.get(entry, ("", 400, "Invalid JSON")) for entry in sorted(served()) if entry[1].startswith("/v1/")
}


@pytest.mark.parametrize(("method", "path"), RUNNER_API)
def test_only_runners_reach_the_api_for_runners(world: World, method: str, path: str) -> None:
    query, status, message = RUNNER_API[method, path]
    path += query
    for holder in HOLDERS:
        answer = world.ask(method, path, holder)
        wanted = status if holder[0] is Role.RUNNER else 403
        assert answer.status_code == wanted, f"{holder}: {answer.text}"
        if wanted != 200:
            said = message if wanted == status else f"role {holder[0]} does not have the action runner:work"
            assert said in answer.json()["error"]["message"]
    assert world.ask(method, path, None).status_code == 401
    through_the_dashboard = world.ask(method, f"/ui/api{path}", (Role.RUNNER, ""))
    assert through_the_dashboard.status_code == 404, "what stands before a fleet closes the API for runners by its path"


# -- the dashboard ----------------------------------------------------------------------------------------------------

_READERS: Final = {Role.ADMIN, Role.DEPLOYER, Role.INVOKER, Role.VIEWER}
_CALLERS: Final = {Role.ADMIN, Role.DEPLOYER, Role.INVOKER}
_READERS_OF_CALLS: Final = {Role.ADMIN, Role.INVOKER, Role.VIEWER}
#: The roles that each page of data is for.
DATA: Final[dict[tuple[str, str], set[Role]]] = {
    ("GET", "/ui/data/me"): _READERS,
    ("GET", "/ui/data/history"): _READERS,
    ("GET", "/ui/data/activity"): _READERS,
    ("GET", "/ui/data/busiest"): _READERS,
    ("GET", "/ui/data/live"): _READERS,
    ("GET", "/ui/data/calls"): _READERS_OF_CALLS,
    ("GET", "/ui/data/async"): _READERS_OF_CALLS,
}


@pytest.mark.parametrize(("method", "path"), DATA)
def test_each_role_reaches_its_data_of_the_dashboard(world: World, method: str, path: str) -> None:
    for role, apps in HOLDERS:
        answer = world.ask(method, path, (role, apps))
        assert answer.status_code == (200 if role in DATA[method, path] else 403), f"{role} of {apps or 'all'}"
        if path in ("/ui/data/history", "/ui/data/calls", "/ui/data/live"):
            of_a = world.ask(method, path, (role, apps), params={"app": "a", "path": "/open"})
            wanted = 404 if apps == "b" else 200
            assert of_a.status_code == (wanted if role in DATA[method, path] else 403), f"{role} of {apps or 'all'}"
    assert world.ask(method, path, None).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ui/", 200),
        ("GET", "/ui/static/app.js", 200),
        ("POST", "/ui/login", 403),  # the page key is missing
        ("POST", "/ui/logout", 403),
    ],
)
def test_the_pages_of_the_dashboard_are_open_and_their_keys_are_needed(
    world: World, method: str, path: str, status: int
) -> None:
    for holder in (*HOLDERS, None):
        assert world.ask(method, path, holder).status_code == status


def test_what_the_dashboard_does_not_serve_is_for_administrators_only(world: World) -> None:
    for method, path in (("GET", "/ui/data/x"), ("POST", "/ui/data/me"), ("GET", "/ui/data/"), ("GET", "/ui/x")):
        for role, apps in HOLDERS:
            wanted = 404 if role is Role.ADMIN and not apps else 403
            assert world.ask(method, path, (role, apps)).status_code == wanted, f"{role} of {apps or 'all'}: {path}"
        assert world.ask(method, path, None).status_code == 401


def test_a_call_from_the_dashboard_has_nothing_of_its_sender(world: World) -> None:
    for role, apps in HOLDERS:
        for path, admitted in (("/r/a/open", 200), ("/r/a/closed", 401)):
            wanted = admitted if role in _CALLERS else 403
            answer = world.ask("POST", f"/ui/call{path}", (role, apps), content=b"{}")
            assert answer.status_code == wanted, f"{role} of {apps or 'all'}: {path}: {answer.text}"
    assert world.ask("POST", "/ui/call/r/a/open", None).status_code == 401


# -- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/r/a/closed", "/invoke/:fn", "/t/a/s"])
def test_each_role_calls_functions_of_its_apps_only(world: World, path: str) -> None:
    url = path.replace(":fn", world.fn_id)
    for role, apps in HOLDERS:
        answer = world.ask("POST", url, (role, apps), content=b"{}")
        wanted = ADMITTED[path] if role in _CALLERS and apps != "b" else 403
        assert answer.status_code == wanted, f"{role} of {apps or 'all'}: {answer.text}"
        said = {403: "does not have the action functions:invoke", 404: "Failed to pull image 'none'"}
        assert said.get(wanted, "") in answer.text
    assert world.ask("POST", url, None).status_code == 401


def test_an_open_function_is_called_by_everybody(world: World) -> None:
    for holder in (*HOLDERS, None):
        assert world.ask("POST", "/r/a/open", holder, content=b"{}").status_code == 200


# -- the tables -------------------------------------------------------------------------------------------------------


def test_these_tables_are_complete() -> None:
    parts: Any = Everything()
    assert served() - {("GET", "/v2/openapi.json")} == {*REGISTRY, *RUNNER_API}
    assert len(RUNNER_API) >= 15
    assert set(Data(parts, parts, FakeClock(), {}).entry_points()) == set(DATA)
