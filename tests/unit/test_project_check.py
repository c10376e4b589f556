"""Faults of a function are found before anything is built, with file, line and what to do; none of its code runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth import projects
from hearth.projects import ProjectError, check

HANDLER = "from hearth_fdk import function\n@function\ndef handle(body: dict) -> dict:\n    return body\n"
KIT = "from hearth_fdk import Context, function\n"


def faults(folder: Path, recipe: str, *, as_image: bool = False, **files: str) -> str:
    """What is wrong; empty if nothing is."""
    folder.mkdir(exist_ok=True)
    (folder / "func.yaml").write_text(recipe)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    try:
        check.check(projects.load(folder), as_image=as_image)
    except ProjectError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def handler(:\n", "func.py:1: invalid syntax"),
        ("x = 1\nreturn x\n", "func.py:2: 'return' outside function"),
        ("x = 1\n\x00", "func.py:1: source code string cannot contain null bytes"),
        (
            "import io\n\ndef handler(ctx, data):\n    return data\n",
            "func.py:3: no handler. Decorate one function with",
        ),
        ("", "func.py:1: no handler."),
        (f"{KIT}def handler(ctx, data):\n    return data\n", "func.py:2: no handler."),
        (
            f"{KIT}@function\ndef a(body): ...\n@function\ndef b(body): ...\n",
            "func.py:5: a function has one handler, but @function stands before several: a (line 3), b (line 5)",
        ),
        (f"{KIT}@function\ndef a(body: dict, more: str): ...\n", "func.py:3: a: who should give 'more'?"),
        (f"{KIT}class User: ...\n@function\ndef a(body: User): ...\n", "func.py:4: a(body): User is a plain class"),
        (f"{KIT}class User: ...\n@function\ndef a(body: 'list[User] | None'): ...\n", "User is a plain class"),
        (f"{KIT}import re\n@function\ndef a(body: re.Pattern): ...\n", "a(body): re.Pattern is not supported"),
        (f"{KIT}@function\ndef a(body: complex): ...\n", "a(body): complex is not supported"),
        (f"{KIT}@function\ndef a(body: dict[str, bytes]): ...\n", "bytes within JSON is not supported"),
        (
            f"{KIT}import dataclasses, socket\n@dataclasses.dataclass\nclass A:\n    s: socket.socket\n"
            "@function\ndef a(body: A): ...\n",
            "func.py:7: a(body): A.s (line 5): socket.socket is not supported",
        ),
    ],
)
def test_a_fault_of_a_program_is_told_with_its_line(tmp_path: Path, source: str, fault: str) -> None:
    assert fault in faults(tmp_path / "f", "runtime: python\n", func=source)


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        "import hearth_fdk as kit\n@kit.function\nasync def a(): ...\n",
        "from hearth_fdk import *\n@function\ndef a(): ...\n",
        "from hearth_fdk import function\ndef a(body): ...\nfunction(a)\n",
        "import hearth_fdk\ndef a(body): ...\nif __name__ == '__main__':\n    hearth_fdk.run(a)\n",
        "import sys\nfor line in sys.stdin:\n    print(line)\n",  # serves calls by itself
        "from own import *\ndef helper(): ...\n",  # own.py may hold the handler
        "import installed\n",
        "from elsewhere import handler\n@handler\ndef a(body): ...\n",
        f"{KIT}import io\n@function\ndef a(ctx: Context, data: io.BytesIO = None): ...\n",
        f"{KIT}@function\ndef a(body: bytes, *, more: int = 1, **rest: object): ...\n",
        f"{KIT}import datetime as dt, decimal, pathlib, uuid\nfrom typing import *\nfrom enum import Enum\n"
        "class Colour(Enum): RED = 'red'\n"
        "class Row(TypedDict):\n    at: dt.datetime\n    on: dt.date | None\n    id: uuid.UUID\n"
        "class Point(NamedTuple):\n    x: float\n    where: pathlib.Path\n"
        "@function\ndef a(body: dict[str, list[Row | Point | Colour | Literal['x'] | decimal.Decimal]]): ...\n",
        f"{KIT}from pydantic import BaseModel\nclass User(BaseModel):\n    name: str\n"
        "@function\ndef a(body: list[User]): ...\n",
        f"{KIT}import dataclasses\n@dataclasses.dataclass\nclass Node:\n    next: 'Node | None'\n"
        "@function\ndef a(body: Node): ...\n",
        f"{KIT}from own import Thing\n@function\ndef a(body: Thing): ...\n",
    ],
)
def test_what_may_be_right_is_not_refused(tmp_path: Path, source: str) -> None:
    assert faults(tmp_path / "f", "runtime: python\n", func=source, own="") == ""


def test_no_code_of_the_function_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    faults(tmp_path / "f", "runtime: python\n", func=f"open({str(mark)!r}, 'w')\n{HANDLER}")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        ("runtime: python\n", "func.py: not found; a Python function is a func.py with one handler under @function"),
        ("runtime: python\ncmd: main.py\n", "main.py: not found"),
        ("runtime: python\ncmd: python3 main.py\n", "func.yaml:2: cmd: "),
        ("cmd: [python3, main.py]\n", "main.py: no such file or directory"),
        ("name: f\nruntime: exec\n", "func.yaml: cmd: missing; runtime exec needs cmd"),
        ("name: f\ncmd: ./run.sh\n", "func.yaml:2: cmd: ./run.sh: no such file or directory in "),
        (
            "runtime: python\nentrypoint: /python/bin/fdk /function/func.py handler\n",
            "func.yaml:2: entrypoint: /python/bin/fdk belongs to Fn's Python images and serves the format http-stream "
            "only; remove entrypoint and cmd, and mark the handler with @function from hearth_fdk",
        ),
    ],
)
def test_a_command_that_is_not_there_is_told(tmp_path: Path, recipe: str, fault: str) -> None:
    assert fault in faults(tmp_path / "f", recipe)


@pytest.mark.parametrize("recipe", ["runtime: python3.99\n", "runtime: python\nrun_image: python:3.99\n"])
def test_an_image_with_another_python_may_read_what_this_one_cannot(tmp_path: Path, recipe: str) -> None:
    newer = "type of tomorrow = int\n"
    assert faults(tmp_path / "f", recipe, as_image=True, func=newer) == ""
    assert "func.py:1: invalid syntax" in faults(tmp_path / "f", recipe, func=newer)  # run by the Python that builds
    assert "func.py:1: invalid syntax" in faults(tmp_path / "f", "runtime: python\n", as_image=True, func=newer)


def test_a_handler_that_nobody_serves_is_told(tmp_path: Path) -> None:
    told = faults(tmp_path / "f", "runtime: python\ncmd: python3 func.py\n", func=HANDLER)
    assert "func.yaml:2: cmd: Python runs func.py without serving its handler; write cmd: func.py" in told
    own = f"{HANDLER}import hearth_fdk\nhearth_fdk.run(handle)\n"
    assert faults(tmp_path / "f", "runtime: python\ncmd: python3 func.py\n", func=own) == ""


@pytest.mark.parametrize(
    ("recipe", "source", "expected"),
    [
        ("runtime: python\n", HANDLER, "http-stream"),
        ("runtime: python\nformat: default\n", HANDLER, "default"),
        ("runtime: python\nformat: json\n", HANDLER, "json"),
        ("runtime: python\n", "import sys\nprint(sys.stdin.read())\n", None),  # a program for the format default
        ("runtime: exec\ncmd: cat\n", HANDLER, None),
        (
            "runtime: python\ncmd: python3 func.py\n",
            f"{HANDLER}import hearth_fdk\nhearth_fdk.run(handle)\n",
            "http-stream",
        ),
        ("runtime: exec\ncmd: [python3.11, func.py]\n", "from hearth_fdk import run\nrun(print)\n", "http-stream"),
        ("runtime: python\ncmd: python3 func.py\n", "import hearth_fdk\nprint(hearth_fdk.__doc__)\n", None),
        ("runtime: python\ncmd: python3 other.py\n", HANDLER, None),
    ],
)
def test_a_handler_gets_a_format_that_carries_bytes_and_status(
    tmp_path: Path, recipe: str, source: str, expected: str | None
) -> None:
    (tmp_path / "func.yaml").write_text(recipe)
    (tmp_path / "func.py").write_text(source)
    assert projects.load(tmp_path).route().get("format") == expected


def test_a_function_without_a_name_is_named_by_its_path(tmp_path: Path) -> None:
    place = tmp_path / "Users" / "get"
    place.mkdir(parents=True)
    (place / "func.yaml").write_text("cmd: cat\n")
    assert (projects.load(place, tmp_path).name, projects.load(place).name) == ("users-get", "get")
    (place / "func.yaml").write_text("name: own\ncmd: cat\n")
    assert projects.load(place, tmp_path).name == "own"
