"""The reference of the command does not drift from the command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import typer

from hearth.cli.main import app

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_command() -> None:
    spec = importlib.util.spec_from_file_location("command_reference", ROOT / "tools" / "command_reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert (ROOT / "docs" / "cli.md").read_text() == reference.page(), "make reference renews it"


def test_every_entry_of_the_command_can_be_loaded() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("hearth", [], resilient_parsing=True)
    for name in group.list_commands(context):
        _, found, _ = group.resolve_command(context, [name])
        assert found.help, name
