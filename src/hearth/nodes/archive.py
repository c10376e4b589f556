"""The file of a backup: a tar archive whose last member lists the digests of all others.

So an archive that was cut or changed is noticed before anything of it is used. Nothing is unpacked by its own words:
only regular files with names that the reader expects.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final

import msgspec

from hearth.host import private_files
from hearth.models.errors import HearthError

#: The first member; nothing else begins with it.
ABOUT: Final = "hearth-backup.json"
_DIGESTS: Final = "digests.json"
_FORMAT: Final = 1
_CHUNK: Final = 1 << 20
_MOST_ABOUT_BYTES: Final = 64 << 10
_MOST_DIGESTS_BYTES: Final = 256 << 20


class ArchiveDamaged(HearthError):
    """The file is no backup, or not all of one; the text says where it is wrong."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Origin and format of a backup.

    Attributes:
        version: Of the Hearth that made it.
        created_at: RFC 3339.
        has_keys: The key of the secrets is in it.
        format: Of the archive.
    """

    version: str
    created_at: str
    has_keys: bool
    format: int = _FORMAT


class ArchiveWriter:
    """Writes a backup; use :func:`new_archive`. All methods block.

    Attributes:
        bytes: Of the content so far.
        files: Number of files so far.
    """

    def __init__(self, file: BinaryIO, about: About) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self._digests: dict[str, str] = {}
        self.bytes = 0
        self.files = 0
        self.add_bytes(ABOUT, msgspec.json.encode(about))

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add a file with this content."""
        self._add(name, len(data), io.BytesIO(data))

    def add_file(self, name: str, path: Path) -> None:
        """Add a file, with as many bytes as it has now.

        Raises:
            OSError: It cannot be read, or was cut meanwhile.
        """
        with path.open("rb") as file:
            self._add(name, os.fstat(file.fileno()).st_size, file)

    def close(self) -> None:
        """Write the digests and the end."""
        data = msgspec.json.encode(self._digests)
        self._tar.addfile(_member(_DIGESTS, len(data)), io.BytesIO(data))
        self._tar.close()

    def _add(self, name: str, size: int, file: BinaryIO) -> None:
        reader = _Hashing(file)
        self._tar.addfile(_member(name, size), reader)
        self._digests[name] = reader.hash.hexdigest()
        self.bytes += size
        self.files += name != ABOUT


class _Hashing(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


@contextlib.contextmanager
def new_archive(path: Path, about: About) -> Iterator[ArchiveWriter]:
    """Create a backup that only this user reads; it is there as a whole, or not at all.

    Raises:
        OSError: The file exists, or the disk refuses.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            writer = ArchiveWriter(file, about)
            yield writer
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        private_files.sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def unpack(path: Path, folder: Path, is_expected: Callable[[str], bool]) -> About:
    """Unpack a backup into an empty folder, and make sure that it is whole. Blocks.

    Args:
        path: Of the backup.
        folder: Where its files go; on an error, some of them may be there.
        is_expected: Tells the names that a backup may have: relative paths, without ``.`` and ``..``.

    Raises:
        ArchiveDamaged: The file is no backup, was changed or cut.
        OSError: A file cannot be read or written.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(path, mode="r:") as tar:
            first = tar.next()
            if first is None or first.name != ABOUT:
                raise ArchiveDamaged(f"{path}: is no backup of Hearth")
            data = _read(tar, first, _MOST_ABOUT_BYTES)
            found[ABOUT] = hashlib.sha256(data).hexdigest()
            about = _about(data)
            while (member := tar.next()) is not None and member.name != _DIGESTS:
                name = member.name
                if name in found or not is_expected(name) or member.type != tarfile.REGTYPE or member.issparse():
                    raise ArchiveDamaged(f"{path}: {name!r} does not belong in a backup")
                found[name] = _write(tar, member, folder / name)
            if member is None:
                raise ArchiveDamaged(f"{path}: is not complete: its end is missing")
            expected = msgspec.json.decode(_read(tar, member, _MOST_DIGESTS_BYTES), type=dict[str, str])
    except (tarfile.TarError, msgspec.DecodeError, EOFError, ValueError) as exc:
        raise ArchiveDamaged(f"{path}: is damaged or not complete: {exc}") from exc
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ArchiveDamaged(f"{path}: is damaged: {name} is not what was written")
    return about


def _about(data: bytes) -> About:
    about = msgspec.json.decode(data, type=About)
    if about.format != _FORMAT:
        raise ValueError(f"a backup of format {about.format}; this release reads format {_FORMAT}")
    return about


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo, most_bytes: int) -> bytes:
    file = tar.extractfile(member)
    if file is None or member.size > most_bytes:
        raise ValueError(f"{member.name} is too large")
    data = file.read()
    if len(data) != member.size:
        raise EOFError(f"{member.name} is cut")
    return data


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    private_files.make_folder(path.parent)
    file, digest, left = tar.extractfile(member), hashlib.sha256(), member.size
    assert file is not None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as made:
        while data := file.read(_CHUNK):
            digest.update(data)
            made.write(data)
            left -= len(data)
        made.flush()
        os.fsync(descriptor)
    if left:
        raise EOFError(f"{member.name} is cut")
    return digest.hexdigest()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member
