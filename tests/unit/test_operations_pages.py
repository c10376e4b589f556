"""The pages for operators name what there is: each limit of what is kept, each command, tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from hearth import settings
from hearth.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs" / "howto").glob("*.md")} | {
    "runbooks": (ROOT / "docs" / "runbooks.md").read_text()
}


def test_the_page_on_retention_names_each_setting_with_a_value_that_a_node_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = dict(re.findall(r"^\| `(FN_KEEP_[A-Z_]+)=(\w+)` \|", PAGES["retention"], re.MULTILINE))
    known = {str(one.validation_alias) for one in settings.Settings.model_fields.values()}
    assert rows.keys() == {name for name in known if name.startswith("FN_KEEP_")}
    defaults = settings.load()
    for name, value in rows.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    for name in re.findall(r"`(FN_KEEP_[A-Z_]+)=\w+` \|.*\(the default\)", PAGES["retention"]):
        assert getattr(loaded, name.removeprefix("FN_").lower()) == getattr(defaults, name.removeprefix("FN_").lower())


@pytest.mark.parametrize("page", ["retention", "backup", "upgrade", "runbooks"])
def test_each_command_on_a_page_exists(page: str) -> None:
    commands = re.findall(
        r"^(?:[A-Z_]+=\S+ )*hearth ([a-z -]+?)(?: [^a-z-].*| +#.*)?$|`hearth ([a-z -]+)", PAGES[page], re.M
    )
    assert commands
    for words in (first or second for first, second in commands):
        group = typer.main.get_command(app)
        for word in words.split():
            if word.startswith("-") or not hasattr(group, "get_command"):
                break
            found = group.get_command(group.make_context("hearth", [], resilient_parsing=True), word)
            assert found is not None, f"docs: hearth {words}: no command {word}"
            group = found


def test_a_page_names_tests_that_exist() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGES["upgrade"])
    assert named
    for name in named:
        assert f"def {name}(" in tests
