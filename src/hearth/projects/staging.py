"""The steps that bundles and images share: build commands, files, the kit, requirements."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import hearth_fdk
from hearth.projects.errors import ProjectError
from hearth.projects.func_file import FuncFile

REQUIREMENTS: Final = "requirements.txt"
#: A folder of this name beside the requirements holds what would otherwise come from an index.
WHEELS: Final = "wheels"
PYTHON_ENVIRONMENT: Final = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

_LEFT_OUT: Final = (".*", "__pycache__", "test.yaml", "test.json")
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?", re.ASCII)


def run_build_commands(func: FuncFile) -> None:
    """Run what the function wants to be run before each build; its output goes where ours goes.

    Raises:
        ProjectError: One failed.
    """
    for command in func.build or ():
        done = subprocess.run(["/bin/sh", "-c", command], cwd=func.folder, stdout=sys.stderr)
        if done.returncode:
            raise ProjectError(f"{func.file}: build: {command!r} ended with status {done.returncode}")


def copy_files(source: Path, target: Path) -> None:
    """The function's own files, without hidden ones and without its tests.

    Raises:
        ProjectError: One of them cannot be copied.
    """
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    except shutil.Error as exc:  # it has tried them all
        first, _, reason = exc.args[0][0]
        raise ProjectError(f"{first}: cannot be copied: {reason}") from exc


def digest_of_sources(folder: Path) -> str:
    """A digest of what a build would copy: of a build's own traces only those that are files of the function."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            for piece in ("/".join(parts).encode(), path.read_bytes()):
                found.update(len(piece).to_bytes(8, "big"))
                found.update(piece)
    return found.hexdigest()


def copy_kit(packages: Path) -> None:
    """Put ``hearth_fdk`` among the function's packages."""
    copy_package(Path(hearth_fdk.__file__).parent, packages)


def copy_package(package: Path, packages: Path) -> None:
    """Put a folder of Python modules among the function's packages."""
    shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("__pycache__"))


def python_command(func: FuncFile, interpreter: str) -> list[str]:
    """The command of a Python function. The kit runs its program, so that a marked handler is served.

    A path, ``./func.py``, is run by itself, as any program.
    """
    words = list(func.command) or ["func.py"]
    if _PYTHON.fullmatch(words[0]):
        return [interpreter, *words[1:]]
    if words[0].endswith(".py") and not words[0].startswith(("/", "./", "../")):
        return [interpreter, "-m", hearth_fdk.__name__, *words]
    return words


def pip_arguments(func: FuncFile) -> list[str]:
    """How pip is told what to install, from within the function's folder; empty if there is nothing."""
    if not (func.folder / REQUIREMENTS).is_file():
        return []
    offline = ["--no-index", "--find-links", WHEELS] if (func.folder / WHEELS).is_dir() else []
    return [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        *offline,
        "--requirement",
        REQUIREMENTS,
    ]


def install_requirements(func: FuncFile, packages: Path) -> None:
    """Install what the function requires with this Python's pip.

    Raises:
        ProjectError: pip could not; what it said.
    """
    arguments = pip_arguments(func)
    if not arguments:
        return
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--target", str(packages.resolve())],
        capture_output=True,
        text=True,
        cwd=func.folder,  # a path in it, ./wheels/own.whl, is meant from where it is written
    )
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise ProjectError(f"{func.folder / REQUIREMENTS}: cannot be installed: {' '.join(said)}")


def digest(folder: Path, more: bytes = b"") -> str:
    """A digest of all files below a folder: names, rights and bytes."""
    found = hashlib.blake2b(more, digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            data, mode = os.readlink(path).encode(), 0
        elif path.is_file():
            data, mode = path.read_bytes(), path.stat().st_mode & 0o777
        else:
            continue
        for part in (str(path.relative_to(folder)).encode(), str(mode).encode(), data):
            found.update(len(part).to_bytes(8, "big"))
            found.update(part)
    return found.hexdigest()
