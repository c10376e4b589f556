"""Bundles: images of functions, unpacked to plain folders.

Most run on the machine's own system files. Others have a root file system of their own, in ``root``.

``<bundles>/<name>/.sha256-<digest>/`` shows one image and never changes; ``<bundles>/<name>/<tag>`` links to the last
build of a tag. A reference with a digest, ``name:tag@sha256:...``, means one build for as long as it exists;
one without follows the image store's index, or the link. The images themselves are in the store beside the folder of
bundles (:mod:`hearth.drivers.local.stored`); builds of earlier releases have a folder only, until they are imported.
Links of earlier versions lead to ``.<tag>@...`` instead, which works as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from hearth.host import private_files

MANIFEST: Final = "bundle.json"
#: Where a bundle's own files are.
FILES: Final = "function"
#: Where the root file system of an image is that has one.
ROOT: Final = "root"
#: Begins the name of a folder in which a build is under way.
BUILDING: Final = ".building-"
_REFERENCE: Final = re.compile(
    r"(?P<host>[a-z0-9][a-z0-9.-]*:[0-9]{1,5}/)?"
    r"(?P<name>[a-z0-9][a-z0-9._/-]*?)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)
_LOCK: Final = ".swapping"
#: The folder of unpacked layers, whose files the bundles share.
LAYERS: Final = ".layers"


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The root file system that an image brings, in ``ROOT``, and what only such images say.

    Attributes:
        user: ``user[:group]``, as numbers or as names of its ``/etc/passwd`` and ``/etc/group``; empty: root.
        workdir: Where its program runs; an absolute path without links.
        volumes: Folders that are to be writable; absolute paths without links.
    """

    user: str = ""
    workdir: str = "/"
    volumes: list[str] = msgspec.field(default_factory=list)


class Manifest(msgspec.Struct, kw_only=True):
    """The manifest of a bundle: how to run it.

    Attributes:
        cmd: The program and its arguments.
        env: Variables, beside those of the route.
        paths: Variables that list folders, as ``PATH``: these folders of the bundle come first in them.
        roots: Folders outside the system's that the command needs to see.
        content: The digest of the image; of a build of an earlier release, ``sha256:...`` of all the files.
        system: ``None`` if it runs on the machine's own system files.
    """

    cmd: list[str]
    env: dict[str, str] = msgspec.field(default_factory=dict)
    paths: dict[str, list[str]] = msgspec.field(default_factory=dict)
    roots: list[str] = msgspec.field(default_factory=list)
    content: str = ""
    system: System | None = None


class Bundle:
    """One bundle on disk."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def files(self) -> Path:
        """The function's own files: its working directory."""
        return self.folder / FILES

    @property
    def root(self) -> Path:
        """Its root file system, if it has one."""
        return self.folder / ROOT

    def pin(self, image: str) -> str:
        """Return the reference ``name:tag`` with the digest of this build: no later build changes what it means."""
        return f"{image}@{self.manifest.content}"

    def environment(self, base: Mapping[str, str], route: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a container; later wins: ``base``, the bundle's own, the route's."""
        made = {**base, **self.manifest.env, **route}
        for name, folders in self.manifest.paths.items():
            own = [str(self.folder / folder) for folder in folders]
            made[name] = os.pathsep.join([*own, *filter(None, [made.get(name)])])
        return made

    def hold(self) -> int | None:
        """Keep it from being removed while the returned descriptor is open; ``None`` if it is being removed."""
        try:
            held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not _lock(held, fcntl.LOCK_SH) or not (self.folder / MANIFEST).exists():
            os.close(held)
            return None
        return held


def make_folder(folder: Path) -> None:
    """Make a folder of bundles. Others pass through it, but cannot list it; its parents are this user's alone.

    Raises:
        OSError: It cannot be made.
    """
    private_files.make_folder(folder)
    with contextlib.suppress(PermissionError):  # another user's
        folder.chmod(0o711)


def make_readable(folder: Path) -> None:
    """Let every user read what lies below a folder of bundles, and run what its owner can run. Blocks.

    Functions run as other users than the one that builds, who may keep new files to himself.
    """
    for where, folders, files in os.walk(folder):
        if LAYERS in folders:
            folders.remove(LAYERS)  # readable since they were unpacked
        if MANIFEST in files and ROOT in folders:
            folders.remove(ROOT)  # made of such layers
        for name in (*folders, *files):
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0)
            if wanted != mode:
                os.chmod(path, stat.S_IMODE(wanted))


def locate(bundles: Path, image: str) -> Path | None:
    """Return the folder of ``name[:tag][@sha256:digest]``, always below ``bundles``; ``None`` if it is no reference."""
    match = _REFERENCE.fullmatch(image)
    if match is None or any(part[:1] in ("", ".") for part in match["name"].split("/")):
        return None
    folder = bundles / (match["host"] or "").replace(":", "+") / match["name"]  # variables list folders with colons
    if match["digest"]:
        return folder / folder_name(f"sha256:{match['digest']}")
    return folder / (match["tag"] or "latest")


def index_name(image: str) -> str:
    """Return the name that a reference without a digest has in the index of the image store; empty if it has none."""
    match = _REFERENCE.fullmatch(image)
    return "" if match is None or match["digest"] else f"{_whole_name(match)}:{match['tag'] or 'latest'}"


def digest_of(image: str) -> str:
    """Return the digest in a reference; empty if there is none."""
    match = _REFERENCE.fullmatch(image)
    return f"sha256:{match['digest']}" if match is not None and match["digest"] else ""


def pinned_name(image: str) -> str:
    """Return the name in the index that a reference with the digest of a build of an earlier release has."""
    match = _REFERENCE.fullmatch(image)
    return f"{_whole_name(match)}@sha256:{match['digest']}" if match is not None and match["digest"] else ""


def _whole_name(match: re.Match[str]) -> str:
    return f"{match['host'] or ''}{match['name']}"


def builds(bundles: Path) -> Iterator[tuple[str, Path]]:
    """Yield every build: the name of its function, and its folder. Blocks."""
    for name in _names(bundles):
        for path in sorted(name.iterdir()):
            if path.name.startswith(".sha256-") and (path / MANIFEST).exists():
                yield name.relative_to(bundles).as_posix(), path


def folder_name(content: str) -> str:
    """Return the name of the folder of a build, by its digest; no tag has such a name."""
    return f".{content.replace(':', '-')}"


def load(folder: Path) -> Bundle | None:
    """Return the bundle in a folder, if there is one. Blocks shortly.

    Raises:
        OSError: There may be one, but it cannot be read now.
    """
    folder = folder.resolve()  # first: another build may take its place at any moment
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    return Bundle(folder, manifest)


@contextlib.contextmanager
def exclusive(name: Path) -> Iterator[None]:
    """Keep other builds and removals of the same name out; ``name`` is the folder of all its builds."""
    with (name / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def note_use(bundles: Path, used: Collection[str]) -> None:
    """Note that builds are needed now: their folders' time says when that was last so. Blocks shortly."""
    for folder in _needed(bundles, used):
        with contextlib.suppress(OSError):  # there is none, or it is another user's
            os.utime(folder)


def prune(
    bundles: Path,
    used: Collection[str],
    *,
    before: float,
    most_bytes: int | None = None,
    settled: float = 0.0,
    dry_run: bool = False,
) -> list[Path]:
    """Remove builds that nothing needs, with the tags that lead to them; return their folders. Blocks.

    A build stays if a reference in ``used`` means it, a container holds it, or it is newer than ``before``. ``used``
    has to hold the image of every route of every app, of every accepted async call that has not ended (it keeps the
    image that it was accepted with), and of every version that somebody may roll back to. ``before`` leaves time for a
    deploy between its build and its route, and for calls that still run a route as it was.

    Args:
        bundles: The folder of bundles.
        used: References, with or without a digest.
        before: Builds that were made, deployed or noted as needed later stay; seconds since the epoch.
        most_bytes: What the builds that nothing needs may have together; the oldest of them are removed, too.
        settled: Like ``before``, but holds for those that are removed because of ``most_bytes``.
        dry_run: Return what would be removed, and remove nothing.
    """
    needed = _needed(bundles, used)
    doomed = _doomed(bundles, needed, before, most_bytes, settled)
    if dry_run:
        return [path for paths in doomed.values() for path, _ in paths]
    removed: list[Path] = []
    for name, paths in doomed.items():
        with exclusive(name):
            # a deploy, or a build, may have come between the two looks
            removed += [path for path, noted in paths if _noted(path) == noted and _remove_unheld(path)]
            for link in [path for path in name.iterdir() if path.is_symlink() and not path.exists()]:
                link.unlink()
    return removed


def _needed(bundles: Path, used: Collection[str]) -> set[Path]:
    return {folder.resolve() for image in used if (folder := locate(bundles, image)) is not None}


def _doomed(
    bundles: Path, needed: Collection[Path], before: float, most_bytes: int | None, settled: float
) -> dict[Path, list[tuple[Path, float]]]:
    """Return the builds to remove and their times, by the folder of their name."""
    unneeded = [
        (noted, path, name)
        for name in _names(bundles)
        for path in name.iterdir()
        if path.name.startswith(".") and path.is_dir() and path.resolve() not in needed
        if (noted := _noted(path)) is not None
    ]
    doomed: dict[Path, list[tuple[Path, float]]] = {name: [] for _, _, name in unneeded}
    for noted, path, name in sorted(unneeded, reverse=True):  # the newest first
        is_old = noted < before
        if most_bytes is not None and not is_old:
            most_bytes -= _size(path)
            is_old = most_bytes < 0 and noted < settled
        if is_old:
            doomed[name].append((path, noted))
    return doomed


def _noted(folder: Path) -> float | None:
    """Return when a build was last made, deployed or noted as needed; ``None`` if it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return None


def _size(folder: Path) -> int:
    """Return the bytes of a build's files."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _names(folder: Path) -> Iterator[Path]:
    """Yield the folders that hold builds."""
    if (folder / _LOCK).exists():
        yield folder
    for below in folder.iterdir() if folder.is_dir() else ():
        if not below.name.startswith(".") and not below.is_symlink() and below.is_dir():
            if not (below / MANIFEST).exists():
                yield from _names(below)


def _remove_unheld(folder: Path) -> bool:
    """Remove a build unless a container holds it; return whether it is gone."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        if not _lock(held, fcntl.LOCK_EX):
            return False
        (folder / MANIFEST).unlink(missing_ok=True)  # first, so that no container uses a bundle that is half removed
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(held)


def _lock(descriptor: int, how: int) -> bool:
    """Lock a folder; return whether no other lock conflicts with this."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nothing is removed
        return how == fcntl.LOCK_SH
    return True
