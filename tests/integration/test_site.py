"""The documentation as a site: every link leads somewhere, and a reader needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.browser import chromium

ROOT = Path(__file__).parents[2]
#: What a browser fetches by itself: scripts, style sheets, fonts and images.
FETCHED = re.compile(r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"?([^\"\s>]+)|<link\b([^>]*)>")
SCRIPT = "assets/mermaid.min.js"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make docs` makes. A link to a page or a heading that does not exist is an error."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs: list[str | Path] = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(mkdocs, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def fetched(page: str) -> list[str]:
    found = []
    for source, link in FETCHED.findall(page):
        if source:
            found.append(source)
        elif re.search(r"rel=\"?(?:stylesheet|preload|icon|preconnect|dns-prefetch)", link):
            found += re.findall(r"href=\"?([^\"\s>]+)", link)
    return found


def test_no_page_fetches_anything_from_another_server(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    assert len(pages) > 40
    foreign = {
        str(path.relative_to(site)): [place for place in fetched(page) if re.match(r"(?:https?:)?//", place)]
        for path, page in pages.items()
    }
    assert {path: places for path, places in foreign.items() if places} == {}
    assert not [path for path in site.rglob("*.css") if re.search(r"url\(\"?(?:https?:)?//", path.read_text())]


def test_pages_with_diagrams_have_the_script_of_diagrams_before_the_theme_looks_for_it(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("index.html")}
    drawn = {path: page for path, page in pages.items() if 'class="mermaid"' in page}
    assert drawn
    for path, page in drawn.items():
        scripts = [(path.parent / place).resolve().relative_to(site.resolve()) for place in fetched(page)]
        names = [str(script) for script in scripts]
        assert SCRIPT in names
        assert names.index(SCRIPT) < next(at for at, name in enumerate(names) if "javascripts/bundle" in name)
    assert not [path for path, page in pages.items() if path not in drawn and SCRIPT in page]


def test_the_home_page_shows_install_and_first_function_on_one_screen_without_a_network(site: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{site}/index.html")
        headings = page.locator("article h1, article h2").all_inner_texts()
        assert [text.rstrip("¶") for text in headings] == ["Hearth", "Install", "First function", "Find a page"]
        last = page.locator("article pre").last.bounding_box()
        assert last is not None
        assert last["y"] + last["height"] <= 900
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
