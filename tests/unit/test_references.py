"""The references do not drift from the code that they are written from."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from hearth.cli.main import app
from hearth.projects import ProjectError, load

ROOT = Path(__file__).parents[2]


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("command_reference", "cli.md"),
        ("api_reference", "api.md"),
        ("error_reference", "errors.md"),
        ("schema_reference", "schemas/func.json"),
    ],
)
def test_the_page_is_that_of_the_code(name: str, page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == tool(name).page(), "make reference renews it"


SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / "func.json").read_text()))


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*/func.yaml")), ids=lambda file: file.parent.name)
def test_the_schema_accepts_what_hearth_accepts(file: Path) -> None:
    SCHEMA.validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("text", ["memory: much", "format: xml", "config: [A]", "auth: everyone", "dead_letters: 3"])
def test_the_schema_refuses_what_hearth_refuses(text: str, tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text(f"runtime: docker\n{text}\n")
    with pytest.raises(ProjectError):
        load(tmp_path)
    assert not SCHEMA.is_valid(yaml.safe_load(text))


def test_every_entry_of_the_command_can_be_loaded() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("hearth", [], resilient_parsing=True)
    for name in group.list_commands(context):
        _, found, _ = group.resolve_command(context, [name])
        assert found.help, name
