"""Raise the version in a function's file, and leave every other byte as it is."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

import yaml

from hearth.host.private_files import written_beside
from hearth.projects.errors import ProjectError
from hearth.projects.func_file import FIRST_VERSION, FuncFile, load

_NUMBERS: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", re.ASCII)


def bump(folder: Path) -> str:
    """Raise the last part of the version in a function's file; a file without one gets its first. Return the version.

    Raises:
        ProjectError: The file is wrong, cannot be written, or its version is not made of numbers.
    """
    func = load(folder)
    new = next_version(func)
    write_version(func.file, new)
    return new


def next_version(func: FuncFile) -> str:
    """Return the version after the function's own.

    Raises:
        ProjectError: It is not made of numbers.
    """
    return FIRST_VERSION if func.version is None else _next(func.file, func.version)


def write_version(file: Path, version: str) -> None:
    """Put a version into a function's file.

    Raises:
        ProjectError: The file cannot be read or written.
    """
    try:
        text = file.read_bytes().decode()
        if (changed := _with_version(file, text, version)) != text:
            _replace(file.resolve(), changed)
    except OSError as exc:
        raise ProjectError(f"{file}: {exc.strerror or exc}; the version was not raised") from exc


def _next(file: Path, version: str) -> str:
    match = _NUMBERS.fullmatch(version)
    if match is None:
        raise ProjectError(f"{file}: version: {version!r} cannot be raised, it is not like 1.2.3")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return f"{major}.{minor}.{patch + 1}"


def _with_version(file: Path, text: str, version: str) -> str:
    readable = text.replace("\t", " ") if file.suffix == ".json" else text
    root = yaml.compose(readable, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return f"{text}version: {version}\n"
    for key, value in root.value:
        if key.value == "version":
            start, end = value.start_mark.index, value.end_mark.index
            return _exchanged(text, key.end_mark.index, start, end, version)
    start = root.start_mark.index
    if root.flow_style:
        comma = ", " if root.value else ""
        return f'{text[: start + 1]}"version": "{version}"{comma}{text[start + 1 :]}'
    return f"{text[:start]}version: {version}\n{text[start:]}"


def _exchanged(text: str, key_end: int, start: int, end: int, version: str) -> str:
    written = text[start:end]
    if not written.strip():  # version: with nothing behind it
        return f"{text[:key_end]}: {version}{text[key_end + 1 :]}"
    quote = written[0] if written[0] in "'\"" else ""
    return f"{text[:start]}{quote}{version}{quote}{text[end:]}"


def _replace(file: Path, text: str) -> None:
    """Write it whole or not at all, with the same rights as before."""
    mode = stat.S_IMODE(file.stat().st_mode)
    with written_beside(file, text.encode(), mode=mode, is_durable=False) as made:
        os.replace(made, file)
