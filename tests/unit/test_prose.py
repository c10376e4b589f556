"""The check of the language of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import prose


@pytest.mark.parametrize(
    "line", ["A value that is of no use", "The caller is told of it.", "Whoever holds it", "Begun."]
)
def test_archaic_words_are_found_in_pages(line: str) -> None:
    assert [finding.line for finding in prose.of_markdown(f"# Title\n\n{line}\n")] == [3]


def test_code_in_pages_is_not_prose() -> None:
    assert list(prose.of_markdown("Use `told` here.\n\n```\nwhoever\n```\n")) == []


def test_docstrings_of_functions_open_with_a_verb() -> None:
    source = 'def f():\n    """Whether it runs."""\n\n\ndef g():\n    """Return whether it runs."""\n'
    assert [finding.line for finding in prose.of_python(source)] == [1]


def test_docstrings_of_classes_and_modules_name_the_object() -> None:
    source = '"""What it is."""\n\n\nclass C:\n    """Where it stands."""\n\n\nclass D:\n    """The state of it."""\n'
    assert sorted(finding.line for finding in prose.of_python(source)) == [1, 4]


@pytest.mark.parametrize("line", ["# it is lost for good", "x = 'begun anew'", "def f():\n    'Return what was told.'"])
def test_comments_and_messages_are_checked(line: str) -> None:
    assert list(prose.of_python(f"{line}\n"))


def test_names_are_not_prose() -> None:
    assert list(prose.of_python("told = begun(whoever)\n")) == []


def test_findings_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("Start anew.\n")
    assert prose.main([str(page)]) == 1
    assert capsys.readouterr().out.startswith(f"{page}:1: 'anew': write again")
    page.write_text("Start again.\n")
    assert prose.main([str(page)]) == 0
