"""Images that bring a root file system of their own: their user, their program, and the places of mounts in them."""

from __future__ import annotations

import dataclasses
import platform
import stat
import struct
from pathlib import Path, PurePosixPath
from typing import Final

from hearth.drivers.local import inside, programs
from hearth.drivers.local.bundle import System
from hearth.drivers.local.system_files import OF_IMAGES
from hearth.images.documents import RunConfig
from hearth.images.errors import InvalidImage
from hearth.models.secret import FOLDER as SECRETS

#: Folders of every container, made in the image where it lacks them: it is read-only when they are mounted.
_FOLDERS: Final = ("/dev", "/etc", "/proc", "/tmp", SECRETS)
_FILES: Final = tuple(f"/etc/{name}" for name in OF_IMAGES)
_MAX_VOLUMES: Final = 32
#: Of a passwd or group file: what is longer is not read.
_MAX_NAMES_BYTES: Final = 1 << 20
#: The kernel keeps the last number for "no user".
_MAX_ID: Final = (1 << 32) - 2
_ELF: Final = b"\x7fELF"
_HEADER_BYTES: Final = 4096
#: e_machine of ELF files, by the machine as ``uname`` names it.
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
#: Of a program header: names the interpreter, which loads the program.
_INTERPRETER: Final = 3


class NoProgram(Exception):
    """A program cannot be executed; the text says why, for the owner of the image."""


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """The user of a container as its programs see it."""

    uid: int
    gid: int
    home: str


def system_of(run: RunConfig, name: str) -> System:
    """Return what a configuration says of a root file system, paths as they are given.

    Raises:
        InvalidImage: It is malformed.
    """
    volumes = sorted(run.volumes or ())
    if len(volumes) > _MAX_VOLUMES:
        raise InvalidImage(f"{name}: {len(volumes)} volumes; the limit is {_MAX_VOLUMES}")
    workdir = run.working_dir or "/"
    for path in (workdir, *volumes):
        if "\0" in path:
            raise InvalidImage(f"{name}: {path!r} is no path")
    return System(user=run.user or "", workdir=workdir, volumes=volumes)


def complete(root: Path, system: System, name: str) -> System:
    """Make the places of mounts in an unpacked root file system, and return its paths without links. Blocks.

    A link in such a place is replaced: a mount never follows one.

    Raises:
        InvalidImage: Its working folder or a volume cannot be a folder.
    """
    try:
        for folder in _FOLDERS:
            inside.make_folder(root, PurePosixPath(folder))
        for file in _FILES:
            inside.make_file(root, PurePosixPath(file))
        paths = [inside.follow(root, path) for path in (system.workdir, *system.volumes)]
        for path in paths:
            inside.make_folder(root, path)
    except OSError as exc:
        raise InvalidImage(f"{name}: {exc.filename}: {exc.strerror or exc}") from exc
    workdir, *volumes = map(str, paths)
    if "/" in volumes:
        raise InvalidImage(f"{name}: the volume / hides the image")
    return System(user=system.user, workdir=workdir, volumes=volumes)


def find_user(root: Path, text: str) -> User:
    """Return the user that ``user[:group]`` means. Blocks shortly.

    Raises:
        NoProgram: The image does not know it.
    """
    name, _, group = text.partition(":")
    users = _table(root, "/etc/passwd", 6)
    number = _number(name or "0")
    found = next((row for row in users if (row[0] == name if number is None else _number(row[2]) == number)), None)
    if number is None:
        if found is None or (number := _number(found[2])) is None:
            raise NoProgram(f"the user {name!r} is not in /etc/passwd of the image")
    gid = 0 if found is None else _number(found[3]) or 0
    if group and (wanted := _number(group)) is not None:
        gid = wanted
    elif group:
        groups = {row[0]: _number(row[2]) for row in _table(root, "/etc/group", 3)}
        if (named := groups.get(group)) is None:
            raise NoProgram(f"the group {group!r} is not in /etc/group of the image")
        gid = named
    return User(number, gid, found[5] if found is not None and found[5] else "/")


def find_program(root: Path, cmd: list[str], workdir: str, search: str) -> str:
    """Return the path of the program that a command means in an image. Blocks shortly.

    Args:
        root: The unpacked root file system.
        cmd: The program and its arguments.
        workdir: Where it runs.
        search: The folders in which a program without a slash is looked for, as in ``PATH``.

    Raises:
        NoProgram: It cannot be executed.
    """
    name = cmd[0]
    if not name:
        raise NoProgram("no command specified")
    folders = [""] if "/" in name else search.split(":")
    found: list[tuple[str, Path]] = []
    try:
        for folder in folders:
            path = str(PurePosixPath(workdir, folder, name))
            place = inside.place(root, path)
            if place.exists():
                found.append((path, place))
    except OSError as exc:
        raise NoProgram(f"{name}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise NoProgram(f"{name}: {exc}") from exc
    runnable = [(path, place) for path, place in found if place.is_file() and place.stat().st_mode & stat.S_IXUSR]
    if not runnable:
        if not found:
            raise NoProgram(f"{name}: no such file or directory")
        raise NoProgram(f"{name}: is a directory" if found[0][1].is_dir() else f"{name}: permission denied")
    path, place = runnable[0]
    try:
        _check_format(root, name, place)
    except OSError as exc:
        raise NoProgram(f"{name}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise NoProgram(f"{name}: its interpreter: {exc}") from exc
    return path


def _check_format(root: Path, name: str, place: Path) -> None:
    """Raise if the kernel does not execute a file, or not with what the image has."""
    with place.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if programs.has_dos_shebang(head):
        raise NoProgram(f"{name}: {programs.DOS_SHEBANG}")
    interpreter = programs.interpreter_of(head)
    if head.startswith(_ELF):
        if len(head) >= 64 and head[4:6] == b"\x02\x01":
            (machine,) = struct.unpack_from("<H", head, 18)
            if machine != _MACHINES.get(platform.machine(), machine):
                raise NoProgram(f"{name}: built for another processor than this machine's {platform.machine()}")
            interpreter = _loader(head)
    if interpreter and not inside.place(root, interpreter).is_file():
        raise NoProgram(f"{name}: its interpreter {interpreter} is not in the image")


def _loader(head: bytes) -> str:
    """Return the interpreter that a 64-bit ELF file names; empty if it is linked statically."""
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for start in range(table, table + size * count, size or 1):
        if start + 56 > len(head):
            break
        (kind,) = struct.unpack_from("<I", head, start)
        if kind == _INTERPRETER:
            offset, length = struct.unpack_from("<Q16xQ", head, start + 8)
            return head[offset : offset + length].rstrip(b"\0").decode(errors="replace")
    return ""


def _table(root: Path, path: str, columns: int) -> list[list[str]]:
    """Return the rows of a passwd or group file; none if there is no such file."""
    try:
        place = inside.place(root, path)
        if not place.is_file():
            return []
        with place.open("rb") as file:
            text = file.read(_MAX_NAMES_BYTES).decode(errors="replace")
    except OSError:
        return []
    rows = [line.strip().split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= columns]


def _number(text: str) -> int | None:
    """Return the number of a user or a group; ``None`` if it is a name."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID else None
