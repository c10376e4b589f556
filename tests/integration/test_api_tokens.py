"""Tokens of the API, and what each role of a token may do at each entry point."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from tests.support import contract
from tests.support.clock import FakeClock
from tests.support.door import guarded
from tests.support.scheduled import schedules_of
from tests.support.served_api import NODE, redrives_of

from hearth.access.local import LocalAcceptedCalls
from hearth.aio.clock import SystemClock
from hearth.authorize.stored_tokens import Find, StoredTokens
from hearth.authorize.tokens import digest, is_token, new_token
from hearth.models.app import App
from hearth.models.call import ERROR, SUCCESS, Call
from hearth.models.errors import StoreUnavailable
from hearth.models.fn import Fn
from hearth.models.function import ASYNC
from hearth.models.principal import TOKEN_ROLES, AuthMode, Role
from hearth.models.registry_login import name_of_login
from hearth.models.route import Route
from hearth.models.schedule import Definition, schedule_of
from hearth.models.timing import Timing
from hearth.models.token import Token
from hearth.models.trigger import Trigger
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.server.api import Api
from hearth.server.api_v1.nodes import Nodes
from hearth.server.fleet import Fleet
from hearth.stores.definitions.base import AppFilter
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import SqlDatastore
from hearth.stores.tokens.base import TokenFilter

PINNED: Final = f"x@sha256:{'0' * 64}"
ADMIN: Final = "token-of-the-administrator"
NOW: Final = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
_TIMES: Final[dict[str, Any]] = {"created_at": NOW, "updated_at": NOW}
CALL: Final = "01KBCV00000000000000000001"
CALL_V2: Final = "01KBCV00000000000000000002"
DEAD: Final = "01KBCV00000000000000000003"
SECRET: Final = "s3cret-value"


class World:
    """The API of a node that asks for tokens, with the apps a and b."""

    def __init__(self, datastore: SqlDatastore, queue: Queue, folder: Path) -> None:
        self.datastore = datastore
        self.vault = Vault(datastore, Keyring("", None, folder / FILE))
        self.find: Find = datastore.find_token
        self.stored = StoredTokens(lambda key: self.find(key), SystemClock(), datastore.note_token_use)
        redrives = redrives_of(datastore, LocalAcceptedCalls(queue, datastore, SystemClock()))
        fleet = Fleet(SystemClock())
        fleet.note(NODE)
        self.api = Api(
            datastore,
            SystemClock(),
            dict,
            vault=self.vault,
            forget_token=self.forget,
            schedules=schedules_of(datastore),
            redrives=redrives,
            nodes=Nodes(fleet),
        )
        app = guarded(self.api, AuthMode.REQUIRED, admin=ADMIN, stored=self.stored, clock=FakeClock())
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api", event_hooks={"response": [contract.check]}
        )

    async def forget(self, token_id: str) -> None:
        self.stored.forget(token_id)

    async def seed(self) -> None:
        """Create the apps a and b, each with a route, a fn, a trigger, a secret and a login, and two calls."""
        for name in ("a", "b"):
            app_id = f"id-{name}"
            await self.datastore.insert_app(App(id=app_id, name=name, config={"K": SECRET}, **_TIMES))
            await self.datastore.insert_fn(Fn(id=f"fn-{name}", app_id=app_id, name="fn", image="x", **_TIMES))
            trigger = Trigger(id=f"trigger-{name}", app_id=app_id, fn_id=f"fn-{name}", name="t", source="/s", **_TIMES)
            await self.datastore.insert_trigger(trigger)
            route = Route(app_name=name, path="/r", image="x", config={"K": SECRET}, **_TIMES)
            await self.datastore.insert_route(route)
            await self.vault.put(name, f"OF_{name}".upper(), SECRET, NOW)
            await self._schedule(name)
            await self.vault.put(name, name_of_login("r.example"), '{"username":"me","password":"x"}', NOW)
        call = Call(id=CALL, app_name="a", path="/r", status=SUCCESS, created_at=NOW)
        of_fn = Call(id=CALL_V2, app_name="a", app_id="id-a", path="fn", status=SUCCESS, created_at=NOW)
        dead = Call(id=DEAD, app_name="a", path="/r", type=ASYNC, status=ERROR, created_at=NOW, dead=True)
        await self.datastore.put_calls([(call, b"log"), (of_fn, b"log"), (dead, None)])

    async def _schedule(self, app: str) -> None:
        rule = Definition(function="/r", timing=Timing(every="1h"), payload=SECRET, headers={"X": [SECRET]})
        await self.datastore.put_schedule(
            app, "s", lambda app_id, stored: schedule_of(rule, app, app_id, "s", stored, f"s-{app_id}", NOW)
        )

    async def restore(self) -> str:
        """Undo what requests have changed; return the id of a token of app a."""
        for app in await self.datastore.get_apps(AppFilter()):
            await self.datastore.remove_app(app.name)
        await self.seed()
        await self.create("viewer", "a", name="spare")
        tokens = await self.datastore.get_tokens(TokenFilter())
        return next(token.id for token in reversed(tokens) if token.name == "spare")

    async def ask(self, method: str, path: str, token: str = ADMIN, body: Any = None, **headers: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.request(method, path, json=body, headers={**shown, **headers})

    async def create(self, role: str, *apps: str, **fields: Any) -> str:
        """Create a token; return its value."""
        asked = {"token": {"name": f"{role} {apps}", "role": role, "apps": list(apps), **fields}}
        answer = await self.ask("POST", "/v1/tokens", body=asked)
        assert answer.status_code == 200, answer.text
        value: str = answer.json()["token"]["value"]
        return value

    async def close(self) -> None:
        await self.http.aclose()
        await self.stored.close()


@pytest.fixture
async def world(datastore: SqlDatastore, tmp_path: Path) -> AsyncIterator[World]:
    queue = await open_queue("memory://", SystemClock())
    opened = World(datastore, queue, tmp_path)
    await opened.seed()
    yield opened
    await opened.close()
    await queue.close()


# -- the operations ---------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_listed_and_revoked(world: World) -> None:
    asked = {"name": "ci", "role": "deployer", "apps": ["b", "a", "b"], "expires_at": "2999-01-31T12:00:00+01:00"}
    answer = await world.ask("POST", "/v1/tokens", body={"token": asked})
    made = answer.json()["token"]
    assert answer.json() == {"message": "Token successfully created", "token": made}
    assert set(made) == {"id", "name", "role", "apps", "value", "created_at", "expires_at"}
    assert (made["name"], made["role"], made["apps"]) == ("ci", "deployer", ["a", "b"])
    assert made["expires_at"] == "2999-01-31T11:00:00.000Z"
    assert is_token(made["value"])

    listed = await world.ask("GET", "/v1/tokens")
    shown = {name: value for name, value in made.items() if name != "value"}
    assert listed.json() == {
        "message": "Successfully listed tokens",
        "tokens": [{**shown, "last_used_at": None}],
        "next_cursor": "",
    }
    assert made["value"] not in listed.text

    assert (await world.ask("GET", "/v1/apps/a", made["value"])).status_code == 200
    answer = await world.ask("DELETE", f"/v1/tokens/{made['id']}")
    assert (answer.status_code, answer.json()) == (200, {"message": "Token revoked"})
    assert (await world.ask("GET", "/v1/apps/a", made["value"])).status_code == 401
    assert (await world.ask("DELETE", f"/v1/tokens/{made['id']}")).status_code == 404
    assert (await world.ask("GET", "/v1/tokens")).json()["tokens"] == []


async def test_no_table_holds_the_value_of_a_token(world: World, datastore: SqlDatastore) -> None:
    value = await world.create("viewer")
    found = await datastore.find_token(digest(value.encode()))
    assert found is not None
    assert value not in repr(found)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "name must have 1 to 100 printable characters"),
        ({"name": "x" * 101}, "name must have"),
        ({"name": "a\nb"}, "name must have"),
        ({"role": ""}, "role must be one of admin, deployer, invoker, viewer, runner"),
        ({"role": "local"}, "role must be one of"),
        ({"role": "anonymous"}, "role must be one of"),
        ({"role": "Admin"}, "role must be one of"),
        ({"apps": ["a b"]}, "apps: 'a b'"),
        ({"apps": [""]}, "apps: ''"),
        ({"apps": [f"a{n}" for n in range(101)]}, "apps must have at most 100 names"),
        ({"role": "runner", "apps": ["a"]}, "a runner reaches all apps"),
        ({"expires_at": "soon"}, "expires_at must be an RFC 3339 time"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at must be in the future"),
    ],
)
async def test_what_is_no_token_is_refused(world: World, fields: dict[str, Any], problem: str) -> None:
    asked = {"token": {"name": "x", "role": "viewer", **fields}}
    answer = await world.ask("POST", "/v1/tokens", body=asked)
    assert (answer.status_code, problem in answer.json()["error"]["message"]) == (400, True), answer.text
    assert (await world.ask("GET", "/v1/tokens")).json()["tokens"] == []


@pytest.mark.parametrize("body", [None, [], {}, {"token": None}, {"token": {"name": "x", "role": "viewer", "apps": 1}}])
async def test_a_body_of_another_shape_is_refused(world: World, body: Any) -> None:
    assert (await world.ask("POST", "/v1/tokens", body=body)).status_code == 400


async def test_tokens_are_listed_in_pages_oldest_first(world: World) -> None:
    for number in range(5):
        await world.create("viewer", name=f"t{number}")
    names, cursor = [], ""
    for _ in range(3):
        page = (await world.ask("GET", f"/v1/tokens?per_page=2&cursor={cursor}")).json()
        names.append([token["name"] for token in page["tokens"]])
        cursor = page["next_cursor"]
    assert (names, cursor) == ([["t0", "t1"], ["t2", "t3"], ["t4"]], "")


async def test_an_expired_token_is_refused(world: World) -> None:
    value = new_token()
    expired = Token(
        id="1",
        name="x",
        role=Role.ADMIN,
        digest=digest(value.encode()),
        created_at=NOW,
        expires_at=dt.datetime.now(dt.UTC),
    )
    await world.datastore.insert_token(expired)
    answer = await world.ask("GET", "/v1/apps", value)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_hour_of_the_last_use_is_shown(world: World) -> None:
    await world.ask("GET", "/v1/apps", await world.create("viewer"))
    used_at = None
    while used_at is None:  # it is stored in the background
        (token,) = (await world.ask("GET", "/v1/tokens")).json()["tokens"]
        used_at = token["last_used_at"]
    assert used_at.endswith(":00:00.000Z")


# -- roles ------------------------------------------------------------------------------------------------------------

#: The entry points that need a token, each for the app a where it concerns one, with a body that is accepted.
ENTRIES: Final[dict[tuple[str, str], Any]] = {
    ("GET", "/stats"): None,
    ("GET", "/metrics"): None,
    ("GET", "/docs"): None,
    ("GET", "/v1/openapi.json"): None,
    ("GET", "/v2/openapi.json"): None,
    ("GET", "/v1/apps"): None,
    ("POST", "/v1/apps"): {"app": {"name": "c"}},
    ("GET", "/v1/apps/:app"): None,
    ("PATCH", "/v1/apps/:app"): {"app": {"config": {"N": "1"}}},
    ("DELETE", "/v1/apps/:app"): None,
    ("GET", "/v1/apps/:app/routes"): None,
    ("POST", "/v1/apps/:app/routes"): {"route": {"path": "/new", "image": PINNED}},
    ("GET", "/v1/apps/:app/routes/:route"): None,
    ("PUT", "/v1/apps/:app/routes/:route"): {"route": {"image": PINNED}},
    ("PATCH", "/v1/apps/:app/routes/:route"): {"route": {"image": PINNED}},
    ("DELETE", "/v1/apps/:app/routes/:route"): None,
    ("GET", "/v1/apps/:app/versions"): None,
    ("GET", "/v1/apps/:app/secrets"): None,
    ("PUT", "/v1/apps/:app/secrets/:secret"): {"value": "new"},
    ("DELETE", "/v1/apps/:app/secrets/:secret"): None,
    ("GET", "/v1/apps/:app/registries"): None,
    ("PUT", "/v1/apps/:app/registries/:registry"): {"username": "me", "password": "new"},
    ("DELETE", "/v1/apps/:app/registries/:registry"): None,
    ("GET", "/v1/apps/:app/schedules"): None,
    ("POST", "/v1/apps/:app/schedules"): {"schedule": {"name": "new", "route": "/r", "every": "1h"}},
    ("GET", "/v1/apps/:app/schedules/:schedule"): None,
    ("PUT", "/v1/apps/:app/schedules/:schedule"): {"schedule": {"route": "/r", "every": "2h"}},
    ("DELETE", "/v1/apps/:app/schedules/:schedule"): None,
    ("POST", "/v1/apps/:app/schedules/:schedule/run"): None,
    ("GET", "/v1/apps/:app/calls"): None,
    ("GET", "/v1/apps/:app/calls/:call"): None,
    ("GET", "/v1/apps/:app/calls/:call/log"): None,
    ("GET", "/v1/apps/:app/calls/:call/result"): None,
    ("POST", "/v1/apps/:app/calls/:call/cancel"): None,
    ("GET", "/v1/apps/:app/dead-letters"): None,
    ("DELETE", "/v1/apps/:app/dead-letters"): None,
    ("POST", "/v1/apps/:app/dead-letters/redrive"): None,
    ("GET", "/v1/apps/:app/dead-letters/:call"): None,
    ("DELETE", "/v1/apps/:app/dead-letters/:call"): None,
    ("GET", "/v1/apps/:app/dead-letters/:call/payload"): None,
    ("POST", "/v1/apps/:app/dead-letters/:call/redrive"): None,
    ("GET", "/v1/audit"): None,
    ("GET", "/v1/nodes"): None,
    ("POST", "/v1/nodes/:node/drain"): None,
    ("GET", "/v1/tokens"): None,
    ("POST", "/v1/tokens"): {"token": {"name": "new", "role": "viewer", "apps": ["a"]}},
    ("DELETE", "/v1/tokens/:token"): None,
}
#: The calls of these tests have ended, and left no result.
OF_ENDED: Final = {"result": 410, "cancel": 409, "redrive": 202, "run": 202}
OPEN: Final = {"/", "/version", "/healthz", "/readyz"}
_DOCS: Final = "/docs /v1/openapi.json /v2/openapi.json"


def admitted(role: Role, method: str, path: str) -> bool:
    """What each role may do, written in another way than the table of rules."""
    is_read, of_calls, of_tokens = method == "GET", "/calls" in path, path.startswith(("/v1/tokens", "/v1/audit"))
    is_definition = path.startswith(("/v1/apps", "/v2/")) and not of_calls
    is_secret = any(kind in path for kind in ("/secrets", "/dead-letters", "/registries", "/schedules"))
    if role is Role.ADMIN:
        return True
    if of_tokens:
        return False
    if path in _DOCS.split():
        return role is not Role.RUNNER
    if path in ("/stats", "/metrics", "/v1/nodes"):
        return role is Role.VIEWER
    return {
        Role.DEPLOYER: is_definition or (of_calls and not is_read),
        Role.INVOKER: of_calls and is_read,
        Role.VIEWER: is_read and "/dead-letters" not in path,
        Role.RUNNER: is_read and is_definition and not is_secret,
    }[role]


#: Those of API v2, whose paths have ids, each for the app a.
ENTRIES_V2: Final[dict[tuple[str, str], Any]] = {
    ("GET", "/v2/apps"): None,
    ("POST", "/v2/apps"): {"name": "c"},
    ("GET", "/v2/apps/:id"): None,
    ("PUT", "/v2/apps/:id"): {"config": {"N": "1"}},
    ("DELETE", "/v2/apps/:id"): None,
    ("GET", "/v2/fns"): None,
    ("POST", "/v2/fns"): {"app_id": "id-a", "name": "new", "image": PINNED},
    ("GET", "/v2/fns/:id"): None,
    ("PUT", "/v2/fns/:id"): {"image": PINNED},
    ("DELETE", "/v2/fns/:id"): None,
    ("GET", "/v2/triggers"): None,
    ("POST", "/v2/triggers"): {"app_id": "id-a", "fn_id": "fn-a", "name": "new", "type": "http", "source": "/new"},
    ("GET", "/v2/triggers/:id"): None,
    ("PUT", "/v2/triggers/:id"): {"source": "/changed"},
    ("DELETE", "/v2/triggers/:id"): None,
    ("GET", "/v2/fns/:id/calls"): None,
    ("GET", "/v2/fns/:id/calls/:call"): None,
    ("GET", "/v2/fns/:id/calls/:call/log"): None,
    ("GET", "/v2/fns/:id/calls/:call/result"): None,
    ("POST", "/v2/fns/:id/calls/:call/cancel"): None,
    ("GET", "/v2/runner/apps/:id/triggerBySource/:type/:source"): None,
}
_LISTS_V2: Final = ("/v2/apps", "/v2/fns", "/v2/triggers")


def test_the_table_of_entry_points_is_complete(world: World) -> None:
    served = {entry for entry in world.api.entry_points() if entry[1] not in OPEN}
    assert served == set(ENTRIES) | set(ENTRIES_V2), "a new endpoint needs a rule, and a row in the tables here"


@pytest.mark.parametrize(("method", "path"), ENTRIES)
@pytest.mark.parametrize("scope", ["", "a", "b"])
async def test_each_role_reaches_its_entry_points_and_its_apps_only(
    world: World, method: str, path: str, scope: str
) -> None:
    for role in TOKEN_ROLES:
        if role is Role.RUNNER and scope:
            continue
        spare = await world.restore()  # what the role before has changed
        url = path.replace(":app", "a").replace(":route", "r").replace(":token", spare).replace(":node", NODE.id)
        url = url.replace(":call", DEAD if "/dead-letters/" in url else CALL)
        url = url.replace(":secret", "OF_A").replace(":registry", "r.example").replace(":schedule", "s")
        value = await world.create(role, *scope.split())
        answer = await world.ask(method, url, value, ENTRIES[method, path])
        wanted = _status(role, scope, method, path)
        assert answer.status_code == wanted, f"{role} of {scope or 'all'}: {method} {url}: {answer.text}"
        if wanted == 403:
            error = answer.json() if path.startswith("/v2/") else answer.json()["error"]
            assert f"role {role} does not have the action" in error["message"]
        if wanted == 404 and path != "/v1/tokens/:token":
            unknown = await world.ask(method, url.replace("/apps/a", "/apps/unknown"), value, ENTRIES[method, path])
            assert (unknown.status_code, unknown.content) == (answer.status_code, answer.content)
    anonymous = await world.ask(method, url, "", ENTRIES[method, path])
    assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, "Bearer")


def _status(role: Role, scope: str, method: str, path: str) -> int:
    if ":app" in path and scope == "b":
        return 404
    if not admitted(role, method, path):
        return 403
    of_node = path in ("/stats", "/metrics") or path.startswith("/v1/nodes")
    if scope and (of_node or (method, path) == ("POST", "/v1/apps")):
        return 403
    if scope == "b" and (method, path) == ("POST", "/v1/tokens"):
        return 403
    if scope == "b" and path == "/v1/tokens/:token":
        return 404
    return OF_ENDED.get(path.rpartition("/")[2], 200)


@pytest.mark.parametrize(("method", "path"), ENTRIES_V2)
@pytest.mark.parametrize("scope", ["", "a", "b"])
async def test_each_role_reaches_its_entry_points_of_api_v2_and_its_apps_only(
    world: World, method: str, path: str, scope: str
) -> None:
    kind = {"fns": "fn", "triggers": "trigger"}.get(path.split("/")[2], "id")
    url = path.replace(":id", f"{kind}-a").replace(":call", CALL_V2).replace(":type/:source", "http//s")
    url += "?app_id=id-a" if method == "GET" and path in _LISTS_V2[1:] else ""
    for role in TOKEN_ROLES:
        if role is Role.RUNNER and scope:
            continue
        await world.restore()
        answer = await world.ask(method, url, await world.create(role, *scope.split()), ENTRIES_V2[method, path])
        if not admitted(role, method, path) or (scope and (method, path) == ("POST", "/v2/apps")):
            wanted = 403
        elif scope == "b" and (method != "GET" or path not in _LISTS_V2):
            wanted = 404
        else:
            wanted = 204 if method == "DELETE" else OF_ENDED.get(path.rpartition("/")[2], 200)
        assert answer.status_code == wanted, f"{role} of {scope or 'all'}: {method} {url}: {answer.text}"
        if scope == "b" and path != "/v2/apps":
            assert "-a" not in answer.text


async def test_payloads_and_headers_of_schedules_are_hidden_from_viewers(world: World) -> None:
    for role, shown in (("deployer", SECRET), ("viewer", "***")):
        answer = await world.ask("GET", "/v1/apps/a/schedules/s", await world.create(role))
        assert (answer.json()["schedule"]["payload"], answer.json()["schedule"]["headers"]) == (shown, {"X": [shown]})


async def test_a_runner_token_that_is_stored_opens_the_runner_api_and_no_other_does(world: World) -> None:
    seen: list[str] = []

    async def runner_api(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await httpx_answer(send)

    app = guarded(runner_api, AuthMode.LOOPBACK, admin=ADMIN, stored=world.stored)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        for role in TOKEN_ROLES:
            shown = {"Authorization": f"Bearer {await world.create(role)}"}
            answer = await http.get("/v1/runner/async", headers=shown)
            assert answer.status_code == (200 if role is Role.RUNNER else 403), answer.text
    assert len(seen) == 1


async def httpx_answer(send: Callable[[Any], Any]) -> None:
    """Answer with nothing."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


# -- scopes -----------------------------------------------------------------------------------------------------------


async def test_lists_show_what_the_token_reaches(world: World) -> None:
    for role in ("admin", "deployer", "viewer"):
        for apps, seen in (((), ["a", "b"]), (("a",), ["a"]), (("b", "c"), ["b"]), (("c",), [])):
            found = (await world.ask("GET", "/v1/apps", await world.create(role, *apps))).json()
            assert [app["name"] for app in found["apps"]] == seen
    value = await world.create("viewer", "a", "b")
    first = (await world.ask("GET", "/v1/apps?per_page=1", value)).json()
    second = (await world.ask("GET", f"/v1/apps?per_page=1&cursor={first['next_cursor']}", value)).json()
    assert [page["apps"][0]["name"] for page in (first, second)] == ["a", "b"]


async def test_an_administrator_of_an_app_sees_creates_and_revokes_tokens_of_it_only(world: World) -> None:
    for apps in ((), ("a",), ("b",), ("a", "b")):
        await world.create("viewer", *apps)
    ids = {tuple(one["apps"]): one["id"] for one in (await world.ask("GET", "/v1/tokens")).json()["tokens"]}
    value = await world.create("admin", "a")
    listed = (await world.ask("GET", "/v1/tokens?per_page=1", value)).json()
    assert [token["apps"] for token in listed["tokens"]] == [["a"]]
    assert [token["apps"] for token in (await world.ask("GET", "/v1/tokens", value)).json()["tokens"]] == [["a"]] * 2
    for wanted, status in (([], 403), (["b"], 403), (["a", "b"], 403), (["a"], 200)):
        asked = {"token": {"name": "x", "role": "admin", "apps": wanted}}
        answer = await world.ask("POST", "/v1/tokens", value, asked)
        assert answer.status_code == status, answer.text
        assert status == 200 or "tokens:write beyond a" in answer.text
    for foreign in ((), ("b",), ("a", "b")):
        assert (await world.ask("DELETE", f"/v1/tokens/{ids[foreign]}", value)).status_code == 404
    assert (await world.ask("DELETE", f"/v1/tokens/{ids['a',]}", value)).status_code == 200


async def test_a_viewer_sees_no_value_of_a_configuration(world: World) -> None:
    for scope in ((), ("a",)):
        value = await world.create("viewer", *scope)
        for path in ("/v1/apps", "/v1/apps/a", "/v1/apps/a/routes", "/v1/apps/a/routes/r"):
            answer = await world.ask("GET", path, value)
            assert SECRET not in answer.text
            assert '"config":{"K":"***"}' in answer.text
    for role in ("admin", "deployer"):
        assert SECRET in (await world.ask("GET", "/v1/apps/a", await world.create(role, "a"))).text


@pytest.mark.parametrize(
    ("role", "apps", "status"),
    [("admin", [], 200), ("deployer", [], 403), ("deployer", ["a"], 403), ("admin", ["a"], 403)],
)
async def test_only_an_administrator_of_all_apps_changes_quotas(
    world: World, role: str, apps: list[str], status: int
) -> None:
    token = await world.create(role, *apps)
    update = await world.ask("PATCH", "/v1/apps/a", token, {"app": {"quotas": {"memory_mib": 512}}})
    assert update.status_code == status, update.text
    await world.ask("PATCH", "/v1/apps/a", body={"app": {"quotas": {"memory_mib": 64}}})
    removed = await world.ask("DELETE", "/v1/apps/a", token)  # to create it again, without quotas
    assert removed.status_code == status, removed.text
    if status == 403:
        app_id = (await world.ask("GET", "/v1/apps/a")).json()["app"]["id"]
        assert (await world.ask("DELETE", f"/v2/apps/{app_id}", token)).status_code == 403
    if not apps:
        created = await world.ask("POST", "/v1/apps", token, {"app": {"name": "c", "quotas": {"weight": 9}}})
        assert created.status_code == status, created.text
    if status == 403:
        assert "quotas:write" in removed.json()["error"]["message"]
        assert (await world.ask("GET", "/v1/apps/a", token)).json()["app"]["quotas"] == {"memory_mib": 64}


async def test_a_deployer_changes_and_deletes_apps_without_quotas(world: World) -> None:
    token = await world.create("deployer")
    assert (await world.ask("PATCH", "/v1/apps/a", token, {"app": {"config": {"A": "1"}}})).status_code == 200
    assert (await world.ask("DELETE", "/v1/apps/a", token)).status_code == 200


async def test_a_deployer_of_one_app_reaches_another_by_no_way(world: World) -> None:
    value = await world.create("deployer", "a")
    of_b = ("/v1/apps/b", "/v1/apps/b/routes/r", "/v1/apps/b/secrets", "/v1/apps/b/registries")
    before = [(await world.ask("GET", path)).text for path in of_b]
    route = {"route": {"path": "/x", "image": PINNED, "app_name": "b"}}
    for method, path, body, status in (
        ("POST", "/v1/apps", {"app": {"name": "b"}}, 403),
        ("POST", "/v1/apps", {"app": {"name": "new"}}, 403),
        ("PATCH", "/v1/apps/a", {"app": {"name": "b", "config": {"K": "1"}}}, 409),
        ("PATCH", "/v1/apps/b", {"app": {"config": {"K": "1"}}}, 404),
        ("PATCH", "/v1/apps/b", {"app": {"auth": "open"}}, 404),
        ("DELETE", "/v1/apps/b", None, 404),
        ("GET", "/v1/apps/b/secrets", None, 404),
        ("PUT", "/v1/apps/b/secrets/OF_B", {"value": "mine"}, 404),
        ("PUT", "/v1/apps/a/secrets/../../b/secrets/OF_B", {"value": "mine"}, 404),
        ("DELETE", "/v1/apps/b/secrets/OF_B", None, 404),
        ("PUT", "/v1/apps/b/registries/r.example", {"username": "me", "password": "mine"}, 404),
        ("DELETE", "/v1/apps/b/registries/r.example", None, 404),
        ("PUT", "/v1/apps/b/routes/r", {"route": {"auth": "open"}}, 404),
        ("PATCH", "/v1/apps/a", {"app": {"secrets": ["OF_B"]}}, 400),
        ("PATCH", "/v1/apps/a/routes/r", {"route": {"secrets": ["OF_B"]}}, 400),
        ("PATCH", "/v1/apps/a/routes/r", {"route": {"secrets": ["registry:r.example"]}}, 400),
        ("PATCH", "/v1/apps/a/routes/r", {"route": {"signature": {"style": "github", "secret": "OF_B"}}}, 400),
        ("PUT", "/v1/apps/b/routes/r", route, 404),
        ("PUT", "/v1/apps/new/routes/r", route, 404),
        ("POST", "/v1/apps/b/routes", route, 404),
        ("POST", "/v1/apps/a/routes", route, 200),  # in a: unknown keys are ignored
        ("PATCH", "/v1/apps/a/routes/r", {"route": {"path": "/../../b/routes/r"}}, 409),
        ("PUT", "/v1/apps/a/routes/../../b/routes/r", route, 404),
        ("PUT", "/v1/apps/a/../b/routes/r", route, 404),
        ("DELETE", "/v1/apps/a%2F..%2Fb/routes/r", None, 403),
        ("DELETE", "/v1/apps//b", None, 403),
        ("DELETE", "/v1/apps/B/routes/r", None, 404),
    ):
        answer = await world.ask(method, path, value, body)
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
    assert [(await world.ask("GET", path)).text for path in of_b] == before
    assert [app.name for app in await world.datastore.get_apps(AppFilter())] == ["a", "b"]


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("x", 403),
        ("hello:0.0.1", 403),
        ("team/hello", 403),
        ("hello:0.0.1@sha256:short", 403),
        (f"hello:0.0.1@sha256:{'0' * 64}", 200),
        ("registry.example/b/hello:1", 403),
        ("localhost/hello", 403),
        ("localhost:5000/hello", 403),
    ],
)
async def test_a_deployer_of_one_app_names_no_tag_that_is_another_apps(world: World, image: str, status: int) -> None:
    value = await world.create("deployer", "a")
    for method, path in (
        ("POST", "/v1/apps/a/routes"),
        ("PUT", "/v1/apps/a/routes/new"),
        ("PATCH", "/v1/apps/a/routes/r"),
    ):
        body = {"route": {"image": image, **({"path": "/posted"} if method == "POST" else {})}}
        answer = await world.ask(method, path, value, body)
        assert (answer.status_code, "must be pinned" in answer.text) == (status, status == 403)
    whole = await world.create("deployer")
    assert (await world.ask("PUT", "/v1/apps/a/routes/whole", whole, {"route": {"image": image}})).status_code == 200


# -- bad credentials --------------------------------------------------------------------------------------------------


async def test_credentials_of_odd_forms_open_nothing(world: World) -> None:
    value = await world.create("viewer")
    for shown, status in (
        (f"bearer {value}", 200),
        (f"BEARER   {value}  ", 200),
        (f"Bearer\t{value}", 401),
        (f"Bearer{value}", 401),
        (f"Bearer {value},{value}", 401),
        (f"Bearer {value} {value}", 401),
        (f"Bearer {value[:-1]}", 401),
        (f"Bearer {value.upper()}", 401),
        (f"Bearer {value}\xa0", 401),
        (f"Basic {value}", 401),
        (f"Token {value}", 401),
        (f"Bearer {new_token()}", 401),
        ("Bearer", 401),
        ("", 401),
    ):
        answer = await world.http.request("GET", "/v1/apps", headers=[(b"Authorization", shown.encode("latin-1"))])
        assert answer.status_code == status, shown
        assert value not in answer.text
    for first, second in ((value, value), (value, "x"), ("x", value), (ADMIN, value)):
        twice = [("Authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}")]
        assert (await world.http.get("/v1/apps", headers=twice)).status_code in (401, 429)


async def test_a_thousand_wrong_tokens_do_not_keep_a_valid_one_out(world: World) -> None:
    value = await world.create("viewer")
    statuses = [(await world.ask("GET", "/v1/apps", new_token())).status_code for _ in range(1000)]
    assert statuses == [401] * 10 + [429] * 990
    world.stored.forget("")
    assert (await world.ask("GET", "/v1/apps", value)).status_code == 200


async def test_without_its_database_a_node_knows_its_own_tokens_and_refuses_others(world: World) -> None:
    async def fail(key: str) -> Token | None:
        raise StoreUnavailable("away")

    value = await world.create("admin")
    world.find = fail
    for path, status in (("/v1/apps", 503), ("/docs", 503), ("/version", 200), ("/readyz", 200)):
        answer = await world.ask("GET", path, value)
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.headers["retry-after"] == "1"
        assert "x-hearth-version" not in answer.headers
    assert (await world.ask("GET", "/docs")).status_code == 200
