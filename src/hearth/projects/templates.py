"""The files of a new function in each language, and the func.yaml of a folder that has code already."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from hearth.models.function import DEFAULT, HTTP_STREAM
from hearth.projects.errors import ProjectError
from hearth_fdk import checking

_TEXTS: Final = Path(__file__).parent / "templates"
#: A program with one of these words listens on a socket.
_LISTENS: Final = ("FN_LISTENER", "@fnproject/fdk", "fnproject/fdk-go")
_READ: Final = 1 << 20
#: Programs of tools.
_NO_FUNCTIONS: Final = ("setup.py", "conftest.py", "noxfile.py")


class Runtime(StrEnum):
    """The languages of new functions."""

    PYTHON = "python"
    NODE = "node"
    SHELL = "shell"
    GO = "go"
    DOCKER = "docker"
    EXEC = "exec"


@dataclasses.dataclass(frozen=True, slots=True)
class _Template:
    """A new function.

    Attributes:
        runtime: The runtime in func.yaml.
        format: How the files of the template talk to Hearth.
        fields: More lines of func.yaml; ``PROGRAM`` stands for the program's name.
        program: The program's usual name; empty if func.yaml names any.
        suffix: How programs in this language end; empty if only the usual name is one.
        files: The files beside func.yaml.
    """

    runtime: str
    format: str
    fields: str = ""
    program: str = ""
    suffix: str = ""
    files: tuple[str, ...] = ()


_TEMPLATES: Final[Mapping[Runtime, _Template]] = {
    Runtime.DOCKER: _Template("docker", DEFAULT, program="Dockerfile", files=("Dockerfile", "test.yaml")),
    Runtime.PYTHON: _Template("python", HTTP_STREAM, program="func.py", suffix=".py", files=("func.py", "test.yaml")),
    Runtime.NODE: _Template(
        "exec", HTTP_STREAM, "cmd: [node, PROGRAM]\nmemory: 256\n", "func.js", ".js", ("func.js", "test.yaml")
    ),
    Runtime.GO: _Template(
        "exec",
        HTTP_STREAM,
        "build: [go build -o func .]\ncmd: [./func]\n",
        "func.go",
        ".go",
        ("func.go", "go.mod", "test.yaml"),
    ),
    Runtime.SHELL: _Template("exec", DEFAULT, "cmd: [sh, PROGRAM]\n", "func.sh", ".sh", ("func.sh", "test.yaml")),
    Runtime.EXEC: _Template("exec", DEFAULT, "cmd: [tr, a-z, A-Z]\n"),
}


def new_files(folder: Path, runtime: Runtime | None, name: str, format_name: str = "") -> dict[str, str]:
    """Return the files to write into a folder, by name: func.yaml alone if it has a program already.

    Args:
        folder: The folder of the function; it may be missing.
        runtime: The language; ``None`` for that of the folder's program, or Python.
        name: The name of the function.
        format_name: The format; empty for that of the program.

    Raises:
        ProjectError: The folder has several programs, or a file cannot be read.
    """
    chosen, program = _program(folder, runtime)
    template = _TEMPLATES[chosen]
    if program is None:
        head = _head(name, template.runtime, format_name or template.format)
        texts = {file: (_TEXTS / chosen.value / f"{file}.txt").read_text() for file in template.files}
        return {"func.yaml": f"{head}{template.fields.replace('PROGRAM', template.program)}", **texts}
    fields, found_format = _of_code(folder / program, chosen, template)
    return {"func.yaml": _head(name, template.runtime, format_name or found_format) + fields}


def _head(name: str, runtime: str, format_name: str) -> str:
    line = f"format: {format_name}\n" if format_name else ""
    return f"name: {name}\nversion: 0.0.1\nruntime: {runtime}\n{line}"


def _program(folder: Path, runtime: Runtime | None) -> tuple[Runtime, str | None]:
    """Return the language of a folder and the name of its program; ``None`` if it has none.

    Raises:
        ProjectError: It may be one of several.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    except OSError as exc:
        raise ProjectError(f"{folder}: {exc.strerror or exc}") from exc
    wanted = [one for one in _TEMPLATES if runtime in (None, one)]
    for one in wanted:
        if (usual := _TEMPLATES[one].program) in names:
            return one, usual
    found = [(one, name) for one in wanted for name in names if _is_code(_TEMPLATES[one], name)]
    programs = [(one, name) for one, name in found if Path(name).stem in ("main", "index", "app")] or found
    if len(programs) > 1:
        listed = ", ".join(name for _, name in programs)
        raise ProjectError(
            f"{folder}: which is the function: {listed}? Rename it to func{Path(programs[0][1]).suffix}, "
            "or write func.yaml by hand"
        )
    return programs[0] if programs else (runtime or Runtime.PYTHON, None)


def _is_code(template: _Template, name: str) -> bool:
    if name in _NO_FUNCTIONS:
        return False
    is_test = Path(name).stem.startswith("test_") or Path(name).stem.endswith(("_test", ".test", ".config"))
    return bool(template.suffix) and name.endswith(template.suffix) and not is_test


def _of_code(file: Path, runtime: Runtime, template: _Template) -> tuple[str, str]:
    """Return the lines and the format of a program that exists; an empty format leaves it to the build."""
    try:
        source = file.read_bytes()[:_READ]
    except OSError as exc:
        raise ProjectError(f"{file}: {exc.strerror or exc}") from exc
    shown = json.dumps(file.name)
    if runtime is Runtime.PYTHON:
        if not checking.find_handlers(source):
            return f"cmd: [python3, {shown}]\n", ""
        return ("" if file.name == template.program else f"cmd: [{shown}]\n"), HTTP_STREAM
    if runtime in (Runtime.DOCKER, Runtime.EXEC):
        return template.fields, DEFAULT
    listens = any(word.encode() in source for word in _LISTENS)
    return template.fields.replace("PROGRAM", shown), HTTP_STREAM if listens else DEFAULT
