"""Check a function for errors before anything is built or changed, without running its code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from hearth.projects.errors import ProjectError
from hearth.projects.func_file import FuncFile
from hearth_fdk import checking

#: The program of Fn's Python images, which serves one contract.
_FN_KIT: Final = "fdk"
_FN_FORMAT: Final = "http-stream"
_OWN_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


def check(func: FuncFile, *, as_image: bool) -> None:
    """Check a function's command, and the program of a Python function.

    Args:
        func: What is checked. Where ``build`` commands may still write its program, check it after they have run.
        as_image: It becomes an image. That may have another Python, which reads what this one cannot, and programs.

    Raises:
        ProjectError: Everything that is wrong, with file and line, and what to do.
    """
    command = func.command
    if command and Path(command[0]).name == _FN_KIT and func.format != _FN_FORMAT:
        raise ProjectError(
            f"{func.where('entrypoint', 'cmd')}: {command[0]} belongs to Fn's Python images and serves the format "
            f"{_FN_FORMAT} only; remove entrypoint and cmd, and mark the handler with @function from hearth_fdk"
        )
    if func.kind == "exec" and not command:
        raise ProjectError(f"{func.file}: cmd: missing; runtime exec needs cmd: [program, argument, ...]")
    if func.program is not None:
        _check_python(func, func.program, as_image)
    elif func.kind != "docker" and not (as_image and func.run_image):
        _check_own_program(func, command[0])
        if func.script is not None:
            _check_python(func, func.script, as_image, is_served_by_kit=False)


def _check_own_program(func: FuncFile, name: str) -> None:
    """Check a program that lies in the function's folder."""
    program = func.folder / name
    if "/" not in name or name.startswith("/"):
        return
    if not program.exists():
        raise ProjectError(f"{func.where('entrypoint', 'cmd')}: {name}: no such file or directory in {func.folder}")
    if program.is_file() and not os.access(program, os.X_OK):
        raise ProjectError(
            f"{func.where('entrypoint', 'cmd')}: {name}: permission denied; make it executable: chmod +x {program}"
        )


def _check_python(func: FuncFile, name: Path, as_image: bool, *, is_served_by_kit: bool = True) -> None:
    """Check a Python program; one that the kit serves has to have a handler."""
    file = func.folder / name
    try:
        source = file.read_bytes()
    except FileNotFoundError:
        if not is_served_by_kit:
            raise ProjectError(f"{func.where('entrypoint', 'cmd')}: {file}: no such file or directory") from None
        raise ProjectError(
            f"{file}: not found; a Python function is a func.py with one handler under @function, or cmd: "
            f"in {func.file.name} names its program"
        ) from None
    except OSError as exc:
        raise ProjectError(f"{file}: {exc.strerror or exc}") from exc
    problems = checking.syntax_faults(source)
    if problems and as_image and _has_another_python(func):
        return
    if not problems and is_served_by_kit:
        problems = checking.check(source, is_module=lambda module: _is_module(file.parent, module))
    elif not problems and checking.is_not_served(source):
        raise ProjectError(
            f"{func.where('entrypoint', 'cmd')}: Python runs {name} without serving its handler; write cmd: {name}"
        )
    if problems:
        raise ProjectError("\n".join(f"{file}:{problem}" for problem in problems))


def _has_another_python(func: FuncFile) -> bool:
    version = (func.runtime or "python").removeprefix("python")
    return func.run_image is not None or ("." in version and version != _OWN_VERSION)


def _is_module(folder: Path, name: str) -> bool:
    """Return whether a module is one of the function's own files."""
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()
