"""The dashboard in a real browser: each page and each action, in both themes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.support.browser import THEMES, Dashboard, chromium
from tests.support.dashboard import ADMIN, DashboardNode, dashboard_node
from tests.support.waiting import until

Open = Callable[..., Dashboard]

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file. While it is there, no other loop can run in this thread."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardNode]:
    """A node with functions, calls, tokens and a backlog, on which this machine needs no token."""
    with dashboard_node(tmp_path_factory.mktemp("node"), for_browsers=True) as found:
        found.route("shop", "/hello", config={"GREETING": "hi"})
        found.route("shop", "/later", type="async")
        app_id = found.http.get("/v1/apps/shop").json()["app"]["id"]
        fn = {"name": "greet", "app_id": app_id, "image": "obey:1", "memory": 64}
        created = found.http.post("/v2/fns", json=fn).json()
        trigger = {"name": "web", "app_id": app_id, "fn_id": created["id"], "type": "http", "source": "/greet"}
        assert found.http.post("/v2/triggers", json=trigger).status_code == 200
        found.http.put("/v1/apps/shop/secrets/PASSWORD", json={"value": "hidden"})
        for fields in ({"route": "/hello"}, {"fn_id": created["id"]}):
            rule = {"name": f"of-{'-'.join(fields)}", "cron": "30 2 * * *", "timezone": "Europe/Berlin", **fields}
            made = found.http.post("/v1/apps/shop/schedules", json={"schedule": rule})
            assert made.status_code == 200, made.text
        found.token("viewer", "viewer")
        found.add_calls("shop", "/later", 3, status="queued")
        found.add_calls("shop", "/hello", 2, first=1 << 49)
        for _ in range(5):
            found.call("shop", "/hello", echo="x", say="a line\n")
        found.call("shop", "/hello", exit=3)
        found.look()
        yield found


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open windows of dashboards; each is another visitor, without cookies."""
    contexts = []

    def open_one(node: DashboardNode, theme: str = "light", **options: Any) -> Dashboard:
        contexts.append(browser.new_context(color_scheme=theme, **options))  # type: ignore[arg-type]
        return Dashboard(node, contexts[-1])

    yield open_one
    for context in contexts:
        context.close()


PAGES = {
    "overview": ("", "Overview"),
    "apps": ("apps", "Apps"),
    "app": ("app/shop", "App shop"),
    "route": ("function/shop/%2Fhello", "shop /hello"),
    "fn": ("function/shop/greet", "shop greet"),
    "calls": ("calls", "Calls"),
    "async": ("async", "Async calls"),
    "dead": ("dead/shop", "Dead letters of shop"),
    "access": ("access", "Access"),
}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_accessible_and_shows_its_commands(
    node: DashboardNode, open_page: Open, name: str, theme: str
) -> None:
    dashboard = open_page(node, theme)
    dashboard.open(*PAGES[name])
    commands = dashboard.page.locator(".commands pre").all_inner_texts()
    assert any(one.startswith(("hearth ", "fn ")) for one in commands)
    assert any(one.startswith("curl ") for one in commands)
    dashboard.check(f"{name}-{theme}")


@pytest.mark.parametrize("theme", THEMES)
def test_a_call_shows_its_timeline_log_and_resources(node: DashboardNode, open_page: Open, theme: str) -> None:
    dashboard = open_page(node, theme)
    (found,) = node.http.get("/v1/apps/shop/calls?per_page=1&path=/hello&status=success").json()["calls"]
    stored = node.http.get("/v1/apps/shop/calls?path=/hello&to_time=1769900000").json()["calls"]
    with_samples = next(one for one in stored if one["stats"])
    dashboard.open(f"call/shop/{with_samples['id']}", f"Call {with_samples['id']}")
    page = dashboard.page
    for step in ("Created", "Waited", "Started", "Ran", "Completed"):
        expect(page.locator(".timeline")).to_contain_text(step)
    page.get_by_role("searchbox", name="Search the log").fill("LINE 2")
    expect(page.locator("mark")).to_have_text("line 2")
    expect(page.get_by_role("img", name=re.compile("^Memory: now used"))).to_be_visible()
    times = page.locator("time")
    assert times.first.get_attribute("title").endswith(" UTC")  # type: ignore[union-attr]
    dashboard.check(f"call-{theme}")
    assert found["status"] == "success"


def test_a_call_that_failed_for_good_is_found_read_and_run_again(node: DashboardNode, open_page: Open) -> None:
    node.route("fails", "/twice", type="async", retry={"attempts": 2, "backoff_s": 0})
    failed = node.call("fails", "/twice", exit=3).json()["call_id"]
    letter = f"/v1/apps/fails/dead-letters/{failed}"
    assert until(lambda: node.http.get(letter).status_code == 200)
    dashboard = open_page(node)
    page = dashboard.page
    dashboard.open("async", "Async calls")
    page.get_by_role("region", name="Dead letters").get_by_role("link", name="fails").click()
    dashboard.wait("Dead letters of fails")
    page.get_by_role("button", name=f"Show the payload of {failed}").click()
    expect(page.get_by_label("Payload", exact=True)).to_have_text('{"exit": 3}')
    dashboard.check("dead-letter")
    page.get_by_role("link", name=failed).click()
    dashboard.wait(f"Call {failed}")
    expect(page.get_by_role("region", name="Earlier attempts").get_by_role("row")).to_have_count(2)
    page.get_by_role("button", name="Show the stored answer").click()
    expect(page.get_by_label("Answer", exact=True)).to_contain_text("container exit code 3")
    page.get_by_role("link", name="Dead letters").click()
    dashboard.wait("Dead letters of fails")
    page.get_by_role("button", name=f"Run {failed} again").click()
    page.get_by_text(f"redrive {failed}").wait_for()
    assert node.http.get(letter).status_code == 404


def test_an_app_shows_its_schedules_which_run_now_and_pause(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("app/shop", "App shop")
    page = dashboard.page
    rows = page.get_by_role("region", name="Schedules").get_by_role("row")
    of_fn, of_route = rows.filter(has_text="of-fn_id"), rows.filter(has_text="of-route")
    expect(of_fn.get_by_role("link")).to_have_text("greet")
    expect(of_route).to_contain_text("30 2 * * * Europe/Berlin")
    expect(of_route.locator("time")).to_have_count(5)
    expect(of_route.locator("time").first).to_have_attribute("title", re.compile(r" 0[01]:30:00.000 UTC$"))
    page.get_by_role("button", name="Pause of-route").click()
    expect(of_route).to_contain_text("disabled")
    page.get_by_role("button", name="Resume of-route").click()
    expect(of_route.locator("time")).to_have_count(5)
    page.get_by_role("button", name="Run of-route now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Call "))
    call_id = page.url.rpartition("/")[2]
    assert node.http.get(f"/v1/apps/shop/calls/{call_id}").json()["call"]["origin"] == "schedule of-route"


@pytest.mark.parametrize("theme", THEMES)
def test_a_function_is_invoked_with_body_and_headers_and_its_log_follows(
    node: DashboardNode, open_page: Open, theme: str
) -> None:
    dashboard = open_page(node, theme)
    dashboard.open("function/shop/%2Fhello", "shop /hello")
    page = dashboard.page
    form = page.get_by_role("form", name="Invoke the function")
    form.get_by_label("Body").fill('{"echo": "an answer", "say": "a line of the log\\n"}')
    form.get_by_label("Headers").fill("X-Mine: 1\nContent-Type: application/json")
    form.get_by_role("button", name="Invoke").click()
    expect(page.get_by_label("Answer")).to_have_text("an answer")
    expect(page.get_by_label("Log of the call")).to_contain_text("a line of the log")
    dashboard.check(f"invoke-{theme}")
    page.get_by_role("link", name=re.compile("^Call ")).click()
    page.get_by_role("button", name="Run again").click()
    dashboard.wait("shop /hello")
    expect(form.get_by_label("Body")).to_have_value('{"echo": "an answer", "say": "a line of the log\\n"}')
    form.get_by_label("Headers").fill("no header")
    form.get_by_role("button", name="Invoke").click()
    expect(page.get_by_role("alert")).to_contain_text("no header")
    dashboard.expect_no_breach()


def test_configuration_and_limits_are_edited(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("function/shop/%2Fhello", "shop /hello")
    page = dashboard.page
    form = page.get_by_role("form", name="Change the configuration")
    form.get_by_label("Key", exact=True).fill("COLOUR")
    form.get_by_label("Value").fill("blue")
    form.get_by_role("button").click()
    expect(page.get_by_role("region", name="Configuration")).to_contain_text("blue")
    limits = page.get_by_role("form", name="Change limits")
    limits.get_by_label("Memory").fill("96")
    limits.get_by_role("button").click()
    expect(page.locator("dl.facts")).to_contain_text("96 MiB")
    route = node.http.get("/v1/apps/shop/routes/hello").json()["route"]
    assert (route["config"], route["memory"]) == ({"GREETING": "hi", "COLOUR": "blue"}, 96)
    expect(page.locator("main")).to_be_focused()  # the form of before is gone; the keyboard goes on from here
    form.get_by_label("Key", exact=True).fill("BAD=KEY")
    form.get_by_label("Value").fill("x")
    form.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    dashboard.check("edit-refused")


def test_a_fn_is_edited(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("function/shop/greet", "shop greet")
    limits = dashboard.page.get_by_role("form", name="Change limits")
    limits.get_by_label("Memory").fill("72")
    limits.get_by_role("button").click()
    expect(dashboard.page.locator("dl.facts")).to_contain_text("72 MiB")
    expect(dashboard.page.get_by_role("region", name="Triggers")).to_contain_text("/greet")
    dashboard.expect_no_breach()


def test_a_function_shows_its_versions_and_goes_back_to_one(node: DashboardNode, open_page: Open) -> None:
    node.route("shop", "/old")
    for change in ({"image": "obey:2"}, {"config": {"A": "b"}, "image": "obey:2"}):
        assert node.http.patch("/v1/apps/shop/routes/old", json={"route": change}).status_code == 200
    dashboard = open_page(node)
    dashboard.open("function/shop/%2Fold", "shop /old")
    rows = dashboard.page.get_by_role("region", name="Versions").get_by_role("row")
    changed = [row.get_by_role("cell").nth(3).inner_text() for row in rows.all()[1:]]
    assert changed == ["configuration", "code", "first one known"]
    expect(rows.nth(2).get_by_role("button")).to_have_count(0)  # it has the image of the present one
    dashboard.page.get_by_role("button", name="Roll back to version −2").click()
    expect(rows).to_have_count(5)
    expect(rows.nth(1)).to_contain_text("code")
    assert node.http.get("/v1/apps/shop/routes/old").json()["route"]["image"] == "obey"
    dashboard.check("versions")


def test_an_app_is_created_and_tells_what_to_do_next(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("apps", "Apps")
    dashboard.page.get_by_label("New app").fill("fresh")
    dashboard.page.get_by_role("button", name="Create").click()
    dashboard.wait("App fresh")
    expect(dashboard.page.locator(".empty").first).to_contain_text("hearth deploy --app fresh")
    dashboard.check("empty-app")


def test_tokens_are_created_once_shown_and_revoked(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("access", "Access")
    page = dashboard.page
    page.get_by_label("Name").fill("ci")
    page.get_by_label("Role").select_option("deployer")
    page.get_by_role("button", name="Create").click()
    value = page.get_by_label("New token").inner_text()
    assert httpx.get(f"{node.url}/v1/apps", headers={"Authorization": f"Bearer {value}"}).status_code == 200
    page.get_by_role("button", name="Done").click()
    revoke = page.get_by_role("button", name="Revoke ci")
    revoke.click()
    revoke.click()
    expect(revoke).to_have_count(0)
    assert (
        httpx.get(f"{node.url}/ui/data/me", headers={"Authorization": f"Bearer {value}"}).json()["role"] != "deployer"
    )
    expect(page.get_by_role("region", name="Audit log")).to_contain_text("tokens:write")
    dashboard.expect_no_breach()


def test_calls_are_filtered_and_new_ones_appear(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("calls", "Calls")
    page = dashboard.page
    form = page.get_by_role("form", name="Filter")
    form.get_by_label("App").fill("shop")
    form.get_by_label("Status").select_option("error")
    form.get_by_label("Text of the error").fill("EXIT CODE 3")
    form.get_by_role("button").click()
    rows = page.get_by_role("region", name="Calls").locator("tbody tr")
    expect(rows).to_have_count(1)
    page.get_by_label("Show new calls as they end").check()
    node.call("shop", "/hello", exit=3)
    node.look()
    expect(rows).to_have_count(2)
    dashboard.check("calls-filtered")


def test_live_numbers_arrive_without_moving_the_page(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("", "Overview")
    page = dashboard.page
    errors = page.locator(".tile", has_text="Errors in the last hour").locator("dd")
    expect(errors).not_to_have_text("–")
    before, shifted = int(errors.inner_text()), page.evaluate("shifts")
    node.call("shop", "/hello", exit=3)
    node.look()
    expect(errors).to_have_text(str(before + 1))
    assert page.evaluate("shifts") == shifted
    dashboard.expect_no_breach()


# -- logging in -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardNode]:
    """A node on which everything needs a token."""
    with dashboard_node(tmp_path_factory.mktemp("closed"), for_browsers=True, auth="required") as found:
        found.route("shop", "/hello")
        yield found


@pytest.mark.parametrize("theme", THEMES)
def test_a_token_logs_in_and_out(closed: DashboardNode, open_page: Open, theme: str) -> None:
    dashboard = open_page(closed, theme)
    dashboard.open("apps", "Log in")
    page = dashboard.page
    dashboard.check(f"login-{theme}")
    page.get_by_label("Token").fill("hearth_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("This token is not valid on this node")
    page.get_by_label("Token").fill(ADMIN)
    page.keyboard.press("Enter")
    dashboard.wait("Apps")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").click()
    dashboard.wait("Log in")
    dashboard.expect_no_breach()


def test_a_link_of_another_site_leads_into_the_session(closed: DashboardNode, open_page: Open) -> None:
    """The browser keeps the cookie from the request that another site causes."""
    dashboard = open_page(closed)
    dashboard.open("", "Log in")
    dashboard.page.get_by_label("Token").fill(ADMIN)
    dashboard.page.keyboard.press("Enter")
    dashboard.wait("Overview")
    dashboard.page.goto(f"data:text/html,<a href='{closed.url}/ui/%23/apps'>Hearth</a>")
    dashboard.page.get_by_role("link").click()
    dashboard.wait("Apps")


def test_a_viewer_sees_no_form_that_changes_anything(closed: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(closed)
    dashboard.open("", "Log in")
    dashboard.page.get_by_label("Token").fill(closed.token("reader", "viewer"))
    dashboard.page.keyboard.press("Enter")
    dashboard.wait("Overview")
    for path, title in (("", "Overview"), ("apps", "Apps"), ("app/shop", "App shop")):
        dashboard.open(path, title)
        assert dashboard.page.locator("form").count() == 0
    dashboard.open("function/shop/%2Fhello", "shop /hello")
    assert dashboard.page.locator("form").count() == 0
    assert dashboard.page.get_by_role("link", name="Access").count() == 0
    dashboard.expect_no_breach()


@pytest.mark.parametrize("script", ["app.js", "pages/calls.js"])
def test_a_page_that_misses_a_script_says_so(node: DashboardNode, open_page: Open, script: str) -> None:
    dashboard = open_page(node)
    dashboard.page.route(f"**/static/{script}", lambda route: route.abort("failed"))
    dashboard.page.goto(f"{node.url}/ui/")
    expect(dashboard.page.get_by_role("alert")).to_have_text("A part of this page did not load. Reload the page.")
    dashboard.page.unroute_all()
    dashboard.page.reload()
    dashboard.wait("Overview")


# -- for everybody ----------------------------------------------------------------------------------------------------


def test_the_keyboard_reaches_everything(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("", "Overview")
    page = dashboard.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.reload()
    dashboard.wait("Overview")
    for _ in range(4):  # skip link, brand, Overview, Apps
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dashboard.wait("Apps")


@pytest.mark.parametrize("name", PAGES)
def test_narrow_screens_need_no_sideways_scrolling(node: DashboardNode, open_page: Open, name: str) -> None:
    dashboard = open_page(node, viewport={"width": 360, "height": 740})
    dashboard.open(*PAGES[name])
    assert dashboard.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.check(f"{name}-narrow")


def test_the_theme_is_switched_and_kept(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    dashboard.open("", "Overview")
    page = dashboard.page
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Theme").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    dashboard.wait("Overview")
    assert page.evaluate(colour) == dark
    dashboard.check("overview-switched")


def test_no_link_is_dead(node: DashboardNode, open_page: Open) -> None:
    dashboard = open_page(node)
    seen: set[str] = set()
    waiting = ["#/"]
    while waiting and len(seen) < 40:
        link = waiting.pop(0)
        seen.add(link)
        dashboard.page.goto(f"{node.url}/ui/{link}")
        dashboard.page.locator("h1").wait_for()
        dashboard.page.wait_for_load_state()
        assert dashboard.page.locator(".error").count() == 0, link
        found = dashboard.page.locator("main a, nav a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
        waiting += [one for one in dict.fromkeys(found) if one not in seen and one not in waiting]
    assert len(seen) > 10


# -- hostile data, and much of it -------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31mred\x1b]0;title\x07\u202eevil</script><script>alert(2)</script>&quot;'\""


def test_what_functions_and_people_write_is_shown_as_text(tmp_path: Path, open_page: Open) -> None:
    with dashboard_node(tmp_path, for_browsers=True) as hostile:
        hostile.route("shop", "/<b>bold<script>", config={"TEXT": HOSTILE.replace("\x1b", "").replace("\x07", "")})
        hostile.http.post("/v2/apps", json={"name": "a<script>alert(3)</script>"})
        path = "/%3Cb%3Ebold%3Cscript%3E"
        hostile.call("shop", path, echo=HOSTILE, say=HOSTILE)
        hostile.add_calls("shop", "/<b>bold<script>", 1, status="error", error=HOSTILE)
        hostile.token(HOSTILE.encode("ascii", "ignore").decode().replace("\x1b", "").replace("\x07", "")[:60], "viewer")
        hostile.look()
        dashboard = open_page(hostile)
        page = dashboard.page
        dashboard.open("function/shop/%2F%3Cb%3Ebold%3Cscript%3E", "shop /<b>bold<script>")
        expect(page.get_by_role("region", name="Configuration")).to_contain_text("<img src=x onerror=alert(1)>")
        form = page.get_by_role("form", name="Invoke the function")
        form.get_by_label("Body").fill('{"echo": "<script>alert(4)</script>\\u001b[31mred", "say": "<i>x</i>"}')
        form.get_by_role("button", name="Invoke").click()
        expect(page.get_by_label("Answer")).to_have_text("<script>alert(4)</script>red")
        expect(page.get_by_label("Log of the call")).to_contain_text("<i>x</i>")
        calls = hostile.http.get("/v1/apps/shop/calls").json()["calls"]
        for call in calls:
            dashboard.open(f"call/shop/{call['id']}", f"Call {call['id']}")
        for path, title in (("apps", "Apps"), ("app/shop", "App shop"), ("calls", "Calls"), ("access", "Access")):
            dashboard.open(path, title)
            assert page.locator("main img, main script, main b, main i").count() == 0
        text = page.locator("body").inner_text()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text)
        dashboard.open("calls", "Calls")
        expect(page.get_by_role("region", name="Calls")).to_contain_text("\\u202eevil</script>")
        dashboard.check("hostile")


def test_a_thousand_functions_and_many_calls_are_shown_in_pages(tmp_path: Path, open_page: Open) -> None:
    with dashboard_node(tmp_path, for_browsers=True) as large:
        large.route("shop", "/f0000")
        large.define_routes("shop", [f"/f{number:04}" for number in range(1, 1000)])
        large.add_calls("shop", "/f0000", 100_000, log=None)
        for number in range(0, 1000, 10):
            large.count_calls("shop", f"/f{number:04}", number)
        large.look()
        dashboard = open_page(large)
        page = dashboard.page
        dashboard.open("", "Overview")
        rows = page.get_by_role("region", name="Busiest functions").locator("tbody tr")
        expect(rows).to_have_count(10)
        expect(rows.first).to_contain_text("/f0990")
        dashboard.open("app/shop", "App shop")
        expect(page.get_by_role("region", name="Functions").locator("tbody tr")).to_have_count(50)
        page.get_by_role("link", name="Next page").click()
        expect(page.get_by_role("region", name="Functions")).to_contain_text("/f0099")
        dashboard.open("calls?error=nowhere", "Calls")
        expect(page.locator("main")).to_contain_text("Read 2,000 calls for this filter")
        page.get_by_role("link", name="Older calls").click()
        expect(page.get_by_role("link", name="Newest calls")).to_be_visible()
        dashboard.check("many")
