"""The references do not drift from the code that they are written from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import typer

from hearth.cli.main import app

ROOT = Path(__file__).parents[2]


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "page"), [("command_reference", "cli.md"), ("api_reference", "api.md"), ("error_reference", "errors.md")]
)
def test_the_page_is_that_of_the_code(name: str, page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == tool(name).page(), "make reference renews it"


def test_every_entry_of_the_command_can_be_loaded() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("hearth", [], resilient_parsing=True)
    for name in group.list_commands(context):
        _, found, _ = group.resolve_command(context, [name])
        assert found.help, name
