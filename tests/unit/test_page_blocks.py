"""Code in the documentation: each block is executed by a test, checked here, or marked as text.

``sh`` blocks are commands that exist, with options that exist; ``python``, ``json``, ``yaml`` and ``toml`` can be
parsed. The language of a block that no test can run says so: ``text``, ``console``, those of diagrams, and of
other programs.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from hearth.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "fdk" / "README.md", *(ROOT / "docs").rglob("*.md")])
#: Shown, and not run. Tests follow formats.md, and the tutorials as a whole.
MARKED = {"text", "console", "mermaid", "dockerfile", "haproxy", "js"}
CHECKED = {"sh", "python", "json", "yaml", "toml"}
SEPARATORS = {"|", "||", "&&", ";", "&", "(", ")"}
GROUP: Any = typer.main.get_command(app)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        opened: tuple[int, str, str] | None = None
        lines: list[str] = []
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if opened is None and (fence := re.match(r"(\s*)```(\S*)", line)):
                opened, lines = (number, fence[1], fence[2]), []
            elif opened is not None and line.strip() == "```":
                text = "\n".join(one.removeprefix(opened[1]) for one in lines) + "\n"
                yield Block(str(page.relative_to(ROOT)), opened[0], opened[2], text)
                opened = None
            elif opened is not None:
                lines.append(line)
        assert opened is None, page


BLOCKS = list(blocks())


def of(language: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.language == language]
    assert found
    return pytest.mark.parametrize("block", found, ids=lambda block: f"{block.page}:{block.line}")


def test_every_block_is_checked_or_marked() -> None:
    unknown = [f"{one.page}:{one.line}: {one.language!r}" for one in BLOCKS if one.language not in MARKED | CHECKED]
    assert unknown == []


@of("python")
def test_python_can_be_parsed(block: Block) -> None:
    ast.parse(block.text)


@of("json")
def test_json_can_be_parsed(block: Block) -> None:
    for value in re.split(r"\n(?=\{)", block.text.strip()):
        json.loads(value)


@of("yaml")
def test_yaml_can_be_parsed(block: Block) -> None:
    list(yaml.safe_load_all(block.text))


@of("toml")
def test_toml_can_be_parsed(block: Block) -> None:
    tomllib.loads(block.text)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each `hearth` command of a script."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#" if not re.search(r"\S#", line) else ""
        for word in [*lexer, ";"]:
            if word in SEPARATORS:
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if words and words[0] == "hearth":
                    yield words[1:]
                words = []
            else:
                words.append(word)


def check(group: Any, arguments: list[str]) -> None:
    """Parse a command as the program does, without running it."""
    context = group.context_class(group)
    _, arguments, _ = group.make_parser(context).parse_args(list(arguments))
    if arguments:
        name, found, rest = group.resolve_command(context, arguments)
        assert found is not None, arguments
        if hasattr(found, "list_commands"):
            named = name != "logs" or rest[0] in found.commands  # hearth logs APP is hearth logs get APP
            check(found, rest if named else ["get", *rest])
        else:
            _, left, _ = found.make_parser(found.context_class(found)).parse_args(list(rest))
            assert left == [] or found.allow_extra_args, left


@of("sh")
def test_commands_and_their_options_exist(block: Block) -> None:
    assert subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True).stderr == ""
    for arguments in commands(block.text):
        redirected = next((at for at, word in enumerate(arguments) if word in ("<", ">", ">>", "2>")), len(arguments))
        check(GROUP, arguments[:redirected])
