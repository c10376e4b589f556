"""A real browser, and what a page of the dashboard must always be: accessible, and without a breach of its policy."""

from __future__ import annotations

import contextlib
import importlib.resources
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, TimeoutError, sync_playwright

from tests.support.browser_network import browser_network
from tests.support.dashboard import DashboardNode

THEMES: Final = ("light", "dark")
#: Where screenshots are kept: an artefact of a run, never in the repository.
SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
#: What the screen reader needs, and what contrast asks for, by the rules of WCAG 2 up to AA.
_RULES: Final = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
#: Messages of the browser itself about answers that a test provokes.
_EXPECTED: Final = "Failed to load resource: the server responded with a status of"
_WATCH_POLICY: Final = """
    window.policyBreaches = [];
    document.addEventListener("securitypolicyviolation", (one) => {
      policyBreaches.push(`${one.violatedDirective} ${one.blockedURI}`);
    });
    window.shifts = 0;
    const add = (entry) => { if (!entry.hadRecentInput) shifts += entry.value; };
    new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type: "layout-shift", buffered: true });
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser of the system, in a network of its own."""
    path = shutil.which("chromium")
    assert path is not None, "no Chromium; tools/engines.sh installs one"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        program = browser_network().wrap(path, Path(folder))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Dashboard:
    """A window of the dashboard.

    Attributes:
        page: The page, as Playwright drives it.
    """

    def __init__(self, node: DashboardNode, context: BrowserContext) -> None:
        self.node = node
        self.page: Page = context.new_page()
        self._problems: list[str] = []
        self._asked: list[str] = []
        self.page.add_init_script(_WATCH_POLICY)
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self._asked.append(f"{request.method} {request.url}"))
        self.page.on("response", lambda answer: self._asked.append(f"{answer.status} {answer.url}"))
        self.page.on("requestfailed", lambda request: self._asked.append(f"{request.failure} {request.url}"))
        self.page.on("pageerror", lambda error: self._problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self._problems.append(f"dialog {dialog.message}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED):
            self._problems.append(message.text)

    def open(self, path: str, title: str) -> None:
        """Open a page, and wait until it is shown."""
        self.page.goto(f"{self.node.url}/ui/#/{path}")
        self.wait(title)

    def wait(self, title: str) -> None:
        """Wait for the heading of a page."""
        try:
            self.page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
        except TimeoutError as exc:
            shown = self.page.locator("body").inner_text()
            asked = "\n".join(self._asked)
            raise AssertionError(f"no {title!r} at {self.page.url}: {shown}\n{asked}\n{self._problems}") from exc

    def check(self, name: str) -> None:
        """Expect an accessible page that has kept to its policy; keep a picture of it."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        assert self.violations() == []
        self.expect_no_breach()

    def expect_no_breach(self) -> None:
        """Expect that nothing was refused by the browser, and that no script failed."""
        assert self.page.evaluate("policyBreaches") == []
        assert self._problems == []

    def violations(self) -> list[str]:
        """Return what an accessibility checker finds."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_axe())
        found: dict[str, Any] = self.page.evaluate("rules => axe.run(document, rules)", _RULES)
        return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]


def _axe() -> str:
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text()
