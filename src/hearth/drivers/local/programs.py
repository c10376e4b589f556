"""Check that a bundle's command can run before it starts: a failure inside the sandbox would not show its reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Where a function's programs are looked for, unless its configuration says otherwise.
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_SHEBANG: Final = 256
DOS_SHEBANG: Final = "its first line ends in CR LF, which no system reads as an interpreter; save it with LF"


def find_fault(cmd: Sequence[str], workdir: Path, search: str, visible: Sequence[str] | None) -> str | None:
    """Why a command cannot run, in words for the function's owner; ``None`` if nothing speaks against it.

    Args:
        cmd: The program and its arguments.
        workdir: Where it runs.
        search: The folders in which a program without a slash is looked for, as in ``PATH``.
        visible: The folders that it will see; ``None`` if it sees all.
    """
    if not cmd or not cmd[0]:
        return "no command specified"
    name = cmd[0]
    if "=" in name:
        return f"{name}: a program's name must not contain '='"
    program = workdir / name if "/" in name else _search(name, workdir, search)
    if program is None or not program.exists():
        return f"{name}: no such file or directory"
    if program.is_dir():
        return f"{name}: is a directory"
    if not os.access(program, os.X_OK):
        return f"{name}: permission denied"
    if visible is not None and not _is_below(program.resolve(), visible):
        return f"{name}: outside of what a function sees; put it into the bundle"
    return _interpreter_fault(name, program, visible)


def _interpreter_fault(name: str, program: Path, visible: Sequence[str] | None) -> str | None:
    """Say why the interpreter that a script names in its first line cannot run."""
    try:
        with program.open("rb") as file:
            first = file.read(_LONGEST_SHEBANG)
    except OSError:
        return None
    if has_dos_shebang(first):
        return f"{name}: {DOS_SHEBANG}"
    if not (named := interpreter_of(first)):
        return None
    interpreter = Path(named)
    if not interpreter.exists() or (visible is not None and not _is_below(interpreter.resolve(), visible)):
        return f"{name}: its interpreter {interpreter} does not exist where functions run"
    return None


def interpreter_of(head: bytes) -> str:
    """Return the interpreter that a script names in its first line; empty if it is no script."""
    first = head[:_LONGEST_SHEBANG].partition(b"\n")[0]
    words = first[2:].split(None, 1) if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def has_dos_shebang(head: bytes) -> bool:
    """Return whether the first line of a script ends as no system reads it."""
    return head.startswith(b"#!") and head[:_LONGEST_SHEBANG].partition(b"\n")[0].endswith(b"\r")


def _search(name: str, workdir: Path, search: str) -> Path | None:
    candidates = [workdir / folder / name for folder in search.split(os.pathsep)]
    present = [path for path in candidates if path.is_file()]
    runnable = [path for path in present if os.access(path, os.X_OK)]
    return next(iter([*runnable, *present]), None)


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(Path(folder).resolve()) for folder in folders)
