"""How a browser reaches the dashboard: sessions, page keys, rights, and what it may not do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.dashboard import ADMIN, DashboardNode, dashboard_node

from hearth.server.ui.assets import assets

NAVIGATION = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SCRIPT = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}


@pytest.fixture(scope="module")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardNode]:
    """A node that trusts the programs of its machine."""
    with dashboard_node(tmp_path_factory.mktemp("open")) as node:
        node.route("shop", "/hello")
        yield node


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardNode]:
    """A node on which everything needs a token."""
    with dashboard_node(tmp_path_factory.mktemp("closed"), auth="required") as node:
        node.route("shop", "/hello")
        node.route("bank", "/hello")
        yield node


_opened: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def close_browsers() -> Iterator[None]:
    """Close the connections of a test."""
    yield
    while _opened:
        _opened.pop().close()


class Browser:
    """A client as a browser is one, with the page of the dashboard open."""

    def __init__(self, node: DashboardNode) -> None:
        self.http = httpx.Client(base_url=node.url, timeout=60)
        _opened.append(self.http)
        self.key = ""
        self.reload()

    def reload(self) -> None:
        page = self.http.get("/ui/", headers=NAVIGATION)
        assert page.status_code == 200
        found = re.search('name="hearth-page" content="([0-9a-f]{64})"', page.text)
        assert found is not None
        self.key = found[1]

    def ask(self, method: str, path: str, **fields: object) -> httpx.Response:
        headers = {"X-Hearth-Page": self.key, "Origin": str(self.http.base_url).rstrip("/"), **SCRIPT}
        return self.http.request(method, path, headers=headers, **fields)  # type: ignore[arg-type]

    def log_in(self, token: str) -> httpx.Response:
        answer = self.ask("POST", "/ui/login", json={"token": token})
        if answer.status_code == 200:
            self.reload()
        return answer


def message(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


# -- without tokens ---------------------------------------------------------------------------------------------------


def test_on_a_trusting_node_the_dashboard_needs_no_login(open_node: DashboardNode) -> None:
    me = Browser(open_node).ask("GET", "/ui/data/me").json()
    assert (me["role"], me["is_logged_in"], me["can"]["edit_routes"]) == ("local", False, True)


def test_every_answer_of_the_dashboard_tells_browsers_to_be_strict(open_node: DashboardNode) -> None:
    browser = Browser(open_node)
    for answer in (
        browser.http.get("/ui/"),
        browser.http.get("/ui/static/app.js"),
        browser.http.get("/ui/static/none"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_file_has_code_within_markup() -> None:
    text = assets()["index.html"].data.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|javascript:", text)
    scripts = [asset.data.decode() for name, asset in assets().items() if name.endswith(".js") and "vendor" not in name]
    assert len(scripts) > 10
    for script in scripts:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script), "works without a network"


def test_the_first_page_and_the_scripts_of_others_stay_small() -> None:
    assert sum(len(asset.data) for asset in assets().values()) <= 300 * 1024
    assert sum(len(asset.data) for name, asset in assets().items() if name.startswith("vendor/")) <= 150 * 1024
    assert "vendor/uPlot-LICENSE.txt" in assets()


def test_files_are_sent_once(open_node: DashboardNode) -> None:
    first = open_node.http.get("/ui/static/style.css")
    assert first.headers["content-type"] == "text/css; charset=utf-8"
    again = open_node.http.get("/ui/static/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/ui/static/index.html", "/ui/static/../assets.py", "/ui/static/%2e%2e/assets.py", "/ui/static/", "/ui/x"]
)
def test_nothing_but_the_files_is_served(open_node: DashboardNode, path: str) -> None:
    assert open_node.http.get(path).status_code == 404


def test_a_page_of_a_function_cannot_use_the_dashboard(open_node: DashboardNode) -> None:
    """It has the same origin, so the browser sends the cookie and says so; but it lacks the page key."""
    for headers in (SCRIPT, {"Origin": open_node.url}, {**SCRIPT, "X-Hearth-Page": "0" * 64}):
        answer = httpx.get(f"{open_node.url}/ui/data/me", headers=headers)
        assert (answer.status_code, message(answer)) == (
            403,
            "The page does not belong to this session: reload the dashboard",
        )
    answer = httpx.patch(f"{open_node.url}/ui/api/v1/apps/shop", headers=SCRIPT, json={"app": {"config": {"A": "1"}}})
    assert answer.status_code == 403


@pytest.mark.parametrize("headers", [SCRIPT, {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}])
def test_no_script_and_no_frame_gets_the_page_with_the_key(open_node: DashboardNode, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{open_node.url}/ui/", headers=headers)
    assert (answer.status_code, message(answer)) == (403, "Open the dashboard in a window of its own")


def test_a_function_cannot_hold_a_window_of_the_dashboard_or_stand_before_it(open_node: DashboardNode) -> None:
    headers = {"Cross-Origin-Opener-Policy": ["same-origin"], "Service-Worker-Allowed": ["/"], "X-Own": ["1"]}
    open_node.route("shop", "/window", headers=headers)
    answer = open_node.call("shop", "/window", echo="x")
    assert (answer.status_code, answer.headers["x-own"]) == (200, "1")
    assert "cross-origin-opener-policy" not in answer.headers
    assert "service-worker-allowed" not in answer.headers


def test_a_foreign_name_of_the_node_shows_nothing(open_node: DashboardNode) -> None:
    for path in ("/ui/", "/ui/static/app.js", "/ui/data/me"):
        answer = httpx.get(f"{open_node.url}{path}", headers={"Host": "evil.example"})
        assert answer.status_code == 403
        assert "is not a name of this node" in message(answer)


def test_the_dashboard_works_for_its_own_page_where_other_origins_are_listed(tmp_path: Path) -> None:
    with dashboard_node(tmp_path, api_cors="https://ui.example") as listed:
        listed.route("shop", "/hello")
        answer = Browser(listed).ask("PATCH", "/ui/api/v1/apps/shop", json={"app": {"config": {"A": "1"}}})
        assert (answer.status_code, answer.json()["app"]["config"]) == (200, {"A": "1"})


def test_an_operator_can_switch_it_off(tmp_path: Path) -> None:
    with dashboard_node(tmp_path, dashboard=False) as plain:
        assert plain.node.dashboard is None
        for path in ("/ui", "/ui/", "/ui/static/app.js", "/ui/data/me"):
            assert plain.http.get(path).status_code == 404


def test_an_api_node_serves_it_and_says_that_it_runs_no_calls(tmp_path: Path) -> None:
    with dashboard_node(tmp_path, node_type="api") as api:
        me = Browser(api).ask("GET", "/ui/data/me").json()
        assert (me["type"], me["runs_calls"]) == ("api", False)


# -- with tokens ------------------------------------------------------------------------------------------------------


def test_without_a_session_only_the_login_is_shown(node: DashboardNode) -> None:
    browser = Browser(node)
    for path in ("/ui/data/me", "/ui/data/live", "/ui/data/calls", "/ui/api/v1/apps", "/ui/call/r/shop/hello"):
        assert browser.ask("GET", path).status_code == 401


def test_a_session_has_a_cookie_that_no_script_reads_and_no_other_site_sends(node: DashboardNode) -> None:
    answer = Browser(node).log_in(ADMIN)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert ADMIN not in cookie
    attributes = cookie.lower().split("; ")[1:]
    assert {"httponly", "samesite=strict", "path=/ui"} <= set(attributes)


def test_a_session_lasts_until_the_logout(node: DashboardNode) -> None:
    browser = Browser(node)
    before = browser.key
    browser.log_in(ADMIN)
    assert browser.key != before
    assert browser.ask("GET", "/ui/data/me").json()["role"] == "admin"
    stolen = dict(browser.http.cookies)
    assert browser.ask("POST", "/ui/logout").status_code == 200
    assert not browser.http.cookies
    browser.http.cookies.update(stolen)
    assert browser.ask("GET", "/ui/data/me").status_code == 401


def test_a_cookie_alone_does_nothing(node: DashboardNode) -> None:
    browser = Browser(node)
    browser.log_in(ADMIN)
    for path in ("/ui/data/me", "/ui/api/v1/apps"):
        assert browser.http.get(path).status_code == 403  # no page key, even from what does not look like a browser
        assert browser.http.get(path.removeprefix("/ui/api")).status_code != 200  # and the API knows no cookies
    assert browser.http.post("/ui/logout").status_code == 403
    assert browser.ask("GET", "/ui/data/me").status_code == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": " "}', b"\xff", b'{"token": "\xff"}'])
def test_a_login_is_told_what_it_has_to_be(node: DashboardNode, body: bytes) -> None:
    answer = Browser(node).ask("POST", "/ui/login", content=body)
    assert (answer.status_code, message(answer)) == (400, 'A login is a JSON object: {"token": "TOKEN"}')


def test_a_long_login_is_not_read(node: DashboardNode) -> None:
    assert Browser(node).ask("POST", "/ui/login", content=b"x" * 20_000).status_code == 413


def test_wrong_tokens_are_refused_and_counted(tmp_path: Path) -> None:
    with dashboard_node(tmp_path, auth="required") as fresh:
        browser = Browser(fresh)
        statuses = [browser.log_in("hearth_wrong").status_code for _ in range(40)]
        assert statuses[0] == 401
        assert statuses[-1] == 429


def test_a_runner_has_no_dashboard(node: DashboardNode) -> None:
    answer = Browser(node).log_in(node.token("runner", "runner"))
    assert answer.status_code == 403
    assert "dashboard:read" in message(answer)


def test_a_revoked_token_ends_its_session(node: DashboardNode) -> None:
    browser = Browser(node)
    browser.log_in(node.token("short", "viewer"))
    assert browser.ask("GET", "/ui/data/me").json()["name"] == "short"
    (token,) = [one for one in node.http.get("/v1/tokens").json()["tokens"] if one["name"] == "short"]
    assert node.http.delete(f"/v1/tokens/{token['id']}").status_code == 200
    assert browser.ask("GET", "/ui/data/me").status_code == 401


def test_a_viewer_only_reads(node: DashboardNode) -> None:
    browser = Browser(node)
    browser.log_in(node.token("viewer", "viewer"))
    me = browser.ask("GET", "/ui/data/me").json()
    assert not any(me["can"][name] for name in ("edit_apps", "edit_routes", "edit_fns", "call", "config", "tokens"))
    for path in ("/ui/data/history", "/ui/data/busiest", "/ui/data/calls", "/ui/data/async", "/ui/api/v1/apps/shop"):
        assert browser.ask("GET", path).status_code == 200, path
    for method, path in (
        ("PATCH", "/ui/api/v1/apps/shop"),
        ("DELETE", "/ui/api/v1/apps/shop/routes/hello"),
        ("POST", "/ui/api/v1/tokens"),
        ("POST", "/ui/call/r/shop/hello"),
    ):
        assert browser.ask(method, path, json={}).status_code == 403, path


def test_a_token_of_some_apps_sees_nothing_of_others(node: DashboardNode) -> None:
    node.call("bank", "/hello", echo="x")
    node.call("shop", "/hello", echo="x")
    node.look()
    browser = Browser(node)
    browser.log_in(node.token("of shop", "viewer", "shop"))
    assert {one["app"] for one in browser.ask("GET", "/ui/data/busiest").json()["functions"]} == {"shop"}
    assert {one["app_name"] for one in browser.ask("GET", "/ui/data/calls").json()["calls"]} == {"shop"}
    assert browser.ask("GET", "/ui/data/history").json() == {"node": None}
    assert browser.ask("GET", "/ui/data/activity?app=bank&app=shop").json()["apps"].keys() == {"shop"}
    node.route("third", "/hello")
    wider = Browser(node)
    wider.log_in(node.token("of two", "viewer", "shop", "third"))
    assert {one["app_name"] for one in wider.ask("GET", "/ui/data/calls").json()["calls"]} == {"shop"}
    for path in ("history?app=bank&path=/hello", "calls?app=bank", "live?app=bank&path=/hello"):
        assert browser.ask("GET", f"/ui/data/{path}").status_code == 404
    assert browser.ask("GET", "/ui/api/v1/apps/bank").status_code == 404


def test_what_a_session_changes_is_in_the_audit_log_under_its_name(node: DashboardNode) -> None:
    browser = Browser(node)
    browser.log_in(node.token("changer", "deployer"))
    assert browser.ask("PATCH", "/ui/api/v1/apps/shop", json={"app": {"config": {"A": "1"}}}).status_code == 200
    event = node.http.get("/v1/audit").json()["events"][0]
    assert (event["principal"], event["action"], event["app"]) == ("deployer:changer", "apps:write", "shop")


def test_a_function_gets_the_request_of_the_form_and_nothing_of_the_session(node: DashboardNode) -> None:
    browser = Browser(node)
    browser.log_in(ADMIN)
    node.route("shop", "/mirror", image="mirror")
    given = {"X-Hearth-Call-X-Mine": "1", "X-Hearth-Call-Authorization": "Bearer mine", "Content-Type": "text/plain"}
    headers = {"X-Hearth-Page": browser.key, **given, **SCRIPT}
    answer = browser.http.post(f"{node.url}/ui/call/r/shop/mirror?a=b", headers=headers, content=b"a body")
    assert answer.status_code == 200
    seen = {name.lower(): values for name, values in answer.json().items()}
    assert (seen["x-mine"], seen["authorization"], seen["content-type"]) == (["1"], ["Bearer mine"], ["text/plain"])
    assert not {"cookie", "x-hearth-page", "origin", "sec-fetch-site"} & seen.keys()
    assert answer.headers["content-security-policy"] == "sandbox"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Content-Length", value) for value in ("abc", "0", "3", "1000")),
        *(("Transfer-Encoding", "chunked"), ("Host", "elsewhere"), ("Connection", "x-mine"), ("", "x")),
    ],
)
def test_no_header_for_a_function_says_where_its_request_ends(node: DashboardNode, name: str, value: str) -> None:
    node.route("shop", "/mirror", image="mirror")
    headers = {f"X-Hearth-Call-{name}": value, "X-Hearth-Call-X-Mine": "1"}
    answers = [
        node.http.post("/ui/call/r/shop/mirror", headers=headers, content=b"a body"),
        node.http.post("/ui/call/r/shop/mirror", content=b"a body"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    with_it, without = [{key.lower(): values for key, values in answer.json().items()} for answer in answers]
    assert with_it["x-mine"] == ["1"]
    same = ("host", "content-length", "transfer-encoding", "connection")
    assert [with_it.get(key) for key in same] == [without.get(key) for key in same]


@pytest.mark.parametrize(
    "path",
    ["/ui/call/v1/apps", "/ui/api/ui/data/me", "/ui/api/shutdown", "/ui/%61pi/v1/apps", "/ui/api/v1/runner/async"],
)
def test_only_calls_and_the_api_are_reached_through_the_dashboard(node: DashboardNode, path: str) -> None:
    browser = Browser(node)
    browser.log_in(ADMIN)
    assert browser.ask("GET", path).status_code == 404


def test_a_client_with_a_token_of_its_own_needs_no_page(node: DashboardNode) -> None:
    assert node.http.get("/ui/data/me").json()["role"] == "admin"
    wrong = httpx.get(f"{node.url}/ui/data/me", headers={"Authorization": "Bearer hearth_wrong"})
    assert wrong.status_code == 401


def test_live_numbers_come_with_each_look_and_end_with_the_node(tmp_path: Path) -> None:
    with dashboard_node(tmp_path) as live, live.http.stream("GET", "/ui/data/live?app=shop&path=/hello") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith('data: {"node":{')
        live.run(live.node.dashboard.recent.look())  # type: ignore[union-attr]
        assert next(line for line in lines if line).startswith('data: {"node":{')
    # leaving stops the node: it does not wait for whoever watches


def test_a_backlog_is_shown_by_function(tmp_path: Path) -> None:
    with dashboard_node(tmp_path) as busy:
        busy.route("shop", "/later", type="async")
        busy.route("shop", "/hello")
        busy.add_calls("shop", "/later", 3, status="queued")
        busy.add_calls("shop", "/hello", 1, first=1 << 52, status="queued")
        found = busy.http.get("/ui/data/async").json()
        assert [(one["path"], one["queued"]) for one in found["functions"]] == [("/later", 3), ("/hello", 1)]
        assert found["functions"][0]["oldest_at"].startswith("2026-01-31T16:52:39")
        assert found["dead_letters"] == []


def test_dead_letters_are_counted_for_those_who_may_read_them(tmp_path: Path) -> None:
    with dashboard_node(tmp_path, auth="required") as node:
        for number, app in enumerate(("shop", "bank"), 51):
            node.route(app, "/later", type="async")
            node.add_calls(app, "/later", 2, first=1 << number, status="error", type="async", dead=True)
        viewer = {"Authorization": f"Bearer {node.token('viewer', 'viewer')}"}
        assert node.http.get("/ui/data/async", headers=viewer).json()["dead_letters"] == []
        found = node.http.get("/ui/data/async").json()["dead_letters"]
        assert sorted((one["app"], one["count"]) for one in found) == [("bank", 2), ("shop", 2)]
        assert found[0]["oldest_at"].startswith("2026-01-31T16:52:39")


@pytest.mark.parametrize(
    ("query", "text"),
    [("status=odd", "status is not one of"), ("min_ms=-1", "min_ms is not"), ("from_time=x", "from_time is not")],
)
def test_a_filter_that_is_none_is_refused(open_node: DashboardNode, query: str, text: str) -> None:
    answer = open_node.http.get(f"/ui/data/calls?{query}")
    assert answer.status_code == 400
    assert text in message(answer)
