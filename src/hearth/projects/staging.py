"""The steps that bundles and images share: build commands, files, the kit, requirements."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hearth_fdk
from hearth.projects import sources
from hearth.projects.bump import write_version
from hearth.projects.errors import ProjectError
from hearth.projects.func_file import FuncFile

REQUIREMENTS: Final = "requirements.txt"
#: A folder of this name beside the requirements holds what would otherwise come from an index.
WHEELS: Final = "wheels"
#: Where pip puts the programs of what it installs, below the folder of packages.
SCRIPTS: Final = "bin"
PYTHON_ENVIRONMENT: Final = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?", re.ASCII)
_EDITABLE: Final = re.compile(r"\s*(?:-e|--editable)(?:\s+|=)(?P<what>.*\S)")
_INCLUDED: Final = re.compile(r"\s*(?:-r|--requirement)(?:\s*=?\s*)(?P<file>\S+)")
#: Python reads .pth files in its own folders only; this makes it read those of the installed packages as well.
_SITE: Final = """import os
import site

site.addsitedir(os.path.dirname(os.path.abspath(__file__)))
"""


def run_build_commands(func: FuncFile) -> None:
    """Run the function's build commands; their output goes to stderr.

    Raises:
        ProjectError: One failed.
    """
    for command in func.build or ():
        done = subprocess.run(["/bin/sh", "-c", command], cwd=func.folder, stdout=sys.stderr)
        if done.returncode:
            raise ProjectError(f"{func.file}: build: {command!r} ended with status {done.returncode}")


def copy_files(func: FuncFile, target: Path, *, follow_outside: bool = False) -> None:
    """Copy the function's own files; its func.yaml gets the version that is built.

    Raises:
        ProjectError: One of them cannot be copied.
    """
    sources.scan(func.folder, follow_outside=follow_outside).copy(target)
    if func.version is not None and (copied := target / func.file.name).is_file():
        write_version(copied, func.version)


def copy_kit(packages: Path) -> None:
    """Put ``hearth_fdk`` among the function's packages."""
    copy_package(Path(hearth_fdk.__file__).parent, packages)


def copy_package(package: Path, packages: Path) -> None:
    """Put a folder of Python modules among the function's packages."""
    shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("__pycache__"))


def python_command(func: FuncFile, interpreter: str) -> list[str]:
    """Return the command of a Python function. The kit runs its program and serves its handler.

    A path such as ``./func.py`` is executed directly, as any program.
    """
    words = list(func.command) or ["func.py"]
    if _PYTHON.fullmatch(words[0]):
        return [interpreter, *words[1:]]
    if words[0].endswith(".py") and not words[0].startswith(("/", "./", "../")):
        return [interpreter, "-m", hearth_fdk.__name__, *words]
    return words


def pip_arguments(func: FuncFile) -> list[str]:
    """Return the arguments for pip, run in the function's folder; empty if there is nothing to install.

    Raises:
        ProjectError: The requirements name an editable install.
    """
    file = func.folder / REQUIREMENTS
    if not file.is_file():
        return []
    _refuse_editable(file, set())
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


def requirement_files(func: FuncFile) -> list[Path]:
    """Return the files that name what a function requires, those that others include, too."""
    seen: set[Path] = set()
    if (func.folder / REQUIREMENTS).is_file():
        _refuse_editable(func.folder / REQUIREMENTS, seen)
    return sorted(seen)


def _refuse_editable(file: Path, seen: set[Path]) -> None:
    """Raise an error for a requirement that stays in its own folder: the function would not see that."""
    seen.add(file.resolve())
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return  # pip reports it
    for number, line in enumerate(lines, 1):
        if match := _EDITABLE.match(line):
            raise ProjectError(
                f"{file}:{number}: {line.strip()}: an editable install stays in a folder that the function does not "
                f"see; write {match['what']} to install it plainly"
            )
        if (match := _INCLUDED.match(line)) and (more := file.parent / match["file"]).resolve() not in seen:
            _refuse_editable(more, seen)


def write_site_hook(packages: Path) -> None:
    """Have Python read the .pth files among the packages, unless one of these brings a hook of its own."""
    hook = packages / "sitecustomize.py"
    if not hook.exists():
        hook.write_text(_SITE)


def install_requirements(func: FuncFile, packages: Path, interpreter: str) -> dict[str, str]:
    """Install what the function requires with this Python's pip, for ``interpreter``.

    Returns:
        The URL and the hash of each archive that was installed; folders have an empty hash.

    Raises:
        ProjectError: pip is missing, or has failed; with what it said.
    """
    arguments = pip_arguments(func)
    if not arguments:
        return {}
    if importlib.util.find_spec("pip") is None:
        raise ProjectError(
            f"{func.folder / REQUIREMENTS}: pip is missing beside Hearth; install Hearth with it: "
            "uv tool install --with pip hearth-faas"
        )
    with tempfile.NamedTemporaryFile(prefix="hearth-report-") as report:
        done = subprocess.run(
            # pip names the interpreter that it installs for in the first line of each script.
            [
                *(sys.executable, "-m", "pip", "--python", interpreter, *arguments),
                *("--target", str(packages.resolve()), "--report", report.name),
            ],
            capture_output=True,
            text=True,
            cwd=func.folder,  # a path in it, ./wheels/own.whl, is meant from where it is written
        )
        if done.returncode:
            errors = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")]
            said = " ".join(errors or [done.stderr.strip()])
            raise ProjectError(f"{func.folder / REQUIREMENTS}: cannot be installed: {said}")
        installed = json.load(report).get("install", [])
    if any(packages.glob("*.pth")):
        write_site_hook(packages)
    return {
        found["download_info"]["url"]: found["download_info"]
        .get("archive_info", {})
        .get("hashes", {})
        .get("sha256", "")
        for found in installed
    }


def digest(folder: Path, more: bytes = b"") -> str:
    """Return ``sha256:...`` of all files below a folder: names, rights and bytes."""
    found = hashlib.sha256(more)
    for path in _files(folder):
        if path.is_symlink():
            data, mode = os.fsencode(os.readlink(path)), 0
        else:
            data, mode = path.read_bytes(), path.stat().st_mode & 0o777
        for part in (os.fsencode(path.relative_to(folder)), str(mode).encode(), data):
            found.update(len(part).to_bytes(8, "big"))
            found.update(part)
    return f"sha256:{found.hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    """Yield files and links below a folder in a fixed order; folders behind links are not entered."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*files, *(name for name in folders if os.path.islink(os.path.join(place, name)))]):
            yield Path(place, name)
