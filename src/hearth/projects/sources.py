"""The files of a function's folder that a build takes, and those that it leaves out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pathspec

from hearth.projects import cases
from hearth.projects.errors import ProjectError

#: Patterns in gitignore's syntax, in the function's folder.
IGNORE_FILE: Final = ".hearthignore"
#: Left out unless a pattern of the ignore file takes it back in.
LEFT_OUT: Final = (
    *(".git", ".hg/", ".svn/", ".bzr/", "CVS/", ".jj/"),
    *(".venv/", "__pycache__/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/"),
    *(".tox/", ".nox/", ".cache/", ".pip_cache/", ".DS_Store"),
    *(f"/{name}" for name in cases.FILES),
)
#: Marks a folder as a virtual environment, whatever its name.
_VENV_MARK: Final = "pyvenv.cfg"


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One file, folder or link of a build.

    Attributes:
        path: Relative to the function's folder.
        origin: Where its bytes are.
        link: The text of a link that stays a link; ``None`` for files and folders.
        is_folder: True for a folder.
    """

    path: Path
    origin: Path
    link: str | None = None
    is_folder: bool = False

    @property
    def mode(self) -> int:
        """The rights it gets in the build: readable by everyone, executable if its owner may execute it."""
        return 0o755 if self.is_folder or self.origin.stat().st_mode & stat.S_IXUSR else 0o644


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """The files that a build takes from a folder, each folder before its content, and those that it leaves out."""

    taken: tuple[Source, ...]
    left_out: tuple[str, ...]

    def copy(self, target: Path) -> None:
        """Copy everything into a new folder.

        Raises:
            ProjectError: A file cannot be copied.
        """
        target.mkdir()
        target.chmod(0o755)  # what the umask has taken
        for source in self.taken:
            made = target / source.path
            try:
                if source.link is not None:
                    made.symlink_to(source.link)
                    continue
                if source.is_folder:
                    made.mkdir()
                else:
                    shutil.copyfile(source.origin, made)
                    found = source.origin.stat()
                    os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))
                made.chmod(source.mode)
            except OSError as exc:
                raise ProjectError(f"{source.origin}: cannot be copied: {exc.strerror or exc}") from exc

    def digests(self) -> dict[Path, bytes]:
        """Return a digest of rights and bytes for each path, relative to the folder.

        Raises:
            ProjectError: A file cannot be read.
        """
        found: dict[Path, bytes] = {}
        for source in self.taken:
            try:
                data = b"" if source.link or source.is_folder else source.origin.read_bytes()
                mode = b"" if source.link else b"%o" % source.mode
            except OSError as exc:
                raise ProjectError(f"{source.origin}: cannot be read: {exc.strerror or exc}") from exc
            text = os.fsencode(source.link or "")
            found[source.path] = hashlib.sha256(b"%d %b %b %b" % (len(text), text, mode, data)).digest()
        return found

    def outside(self, folder: Path) -> set[Path]:
        """Return the folders and files outside ``folder`` that links lead to."""
        root = folder.resolve()
        return {
            source.origin.resolve()
            for source in self.taken
            if source.link is None and source.origin.is_symlink() and not source.origin.resolve().is_relative_to(root)
        }


def scan(folder: Path, *, follow_outside: bool = False) -> Sources:
    """Find what a build takes from a folder.

    Links to something within the folder stay links, made relative.

    Args:
        folder: The function's folder.
        follow_outside: Take the content of links that leave the folder, instead of refusing them.

    Raises:
        ProjectError: A link leaves the folder or leads nowhere, the ignore file is wrong, or something cannot be read.
    """
    return _Scan(folder, follow_outside).run()


class _Scan:
    def __init__(self, folder: Path, follow_outside: bool) -> None:
        self._folder = folder
        self._root = folder.resolve()
        self._follow_outside = follow_outside
        self._ignored = _patterns(folder / IGNORE_FILE)
        self._left_out: list[str] = []

    def run(self) -> Sources:
        taken = tuple(self._below(self._folder, Path(), ()))
        known = {source.path for source in taken} | {Path()}
        for source in taken:
            if source.link is not None and (target := _inside(source)) not in known:
                raise ProjectError(f"{source.origin}: links to {target}, which is left out of the build")
        return Sources(taken, tuple(self._left_out))

    def _below(self, folder: Path, path: Path, entered: tuple[Path, ...]) -> Iterator[Source]:
        """Yield what is in a folder; ``entered`` are the folders outside that links have led into."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as exc:
            raise ProjectError(f"{folder}: cannot be read: {exc.strerror or exc}") from exc
        for name in names:
            yield from self._entry(folder / name, path / name, entered)

    def _entry(self, origin: Path, path: Path, entered: tuple[Path, ...]) -> Iterator[Source]:
        is_link, is_folder = origin.is_symlink(), origin.is_dir()
        marked = f"{path.as_posix()}/" if is_folder and not is_link else path.as_posix()
        if self._ignored.match_file(marked) or (is_folder and (origin / _VENV_MARK).is_file()):
            self._left_out.append(marked)
            return
        if is_link:
            target = self._target(origin)
            if not entered and target.is_relative_to(self._root):
                inside = target.relative_to(self._root)
                yield Source(path, origin, os.path.relpath(inside, path.parent))
                return
            if target in entered or self._root.is_relative_to(target):
                raise ProjectError(f"{origin}: links to {target}, which contains the link")
            entered = (*entered, target)
        if is_folder:
            yield Source(path, origin, is_folder=True)
            yield from self._below(origin, path, entered)
        elif origin.is_file():
            yield Source(path, origin)
        else:
            raise ProjectError(f"{origin}: cannot be copied: neither a file nor a folder; list it in {IGNORE_FILE}")

    def _target(self, link: Path) -> Path:
        """Return the target of a link."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else None
            raise ProjectError(f"{link}: cannot be copied: {reason or 'the link leads to itself'}") from exc
        if not self._follow_outside and not target.is_relative_to(self._root):
            raise ProjectError(
                f"{link}: links to {target}, outside the function's folder; copy it here, list it in {IGNORE_FILE}, "
                "or take its content with --follow-outside"
            )
        return target


def _inside(source: Source) -> Path:
    """Return the path that a kept link leads to, relative to the function's folder."""
    return Path(os.path.normpath(source.path.parent / (source.link or "")))


def _patterns(file: Path) -> pathspec.GitIgnoreSpec:
    own: list[str] = []
    if file.is_file():
        try:
            own = os.fsdecode(file.read_bytes()).splitlines()
        except OSError as exc:
            raise ProjectError(f"{file}: {exc.strerror or exc}") from exc
    try:
        return _spec([*LEFT_OUT, *own])
    except ValueError:
        for number, line in enumerate(own, 1):
            try:
                _spec([line])
            except ValueError as exc:
                raise ProjectError(f"{file}:{number}: {line!r} is not a pattern of gitignore: {exc}") from exc
        raise


def _spec(lines: Iterable[str]) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(lines)
