"""Unpack layers of any origin: nothing lands outside of the folder, and nothing in it has special rights.

Names are walked from the folder's descriptor, one part after the other, and no link is ever followed. Device nodes,
pipes, owners, set-uid bits and extended attributes are left out. Whiteouts stay as they are, for
:mod:`hearth.images.trees`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol, cast

import msgspec

from hearth.images.documents import LAYER_TYPES
from hearth.images.errors import ImageTooLarge, InvalidImage, StoreFailed

#: Begins the names of files that hide what lower layers have.
WHITEOUT: Final = ".wh."
#: Hides everything that lower layers have in its folder.
OPAQUE: Final = ".wh..wh..opq"
#: Begins the names of files that a file system of Docker's once kept in layers.
_METADATA: Final = ".wh..wh."
#: Folders upon each other: the kernel takes paths of 4,096 bytes, and what walks a tree goes one call deeper for each.
_MAX_DEPTH: Final = 256
_CHUNK: Final = 1 << 18
#: The longest description of one file: names, links and extended attributes.
_MAX_HEADER_BYTES: Final = 1 << 20
#: Larger windows cost a decompressor more memory than a layer is worth.
_MAX_WINDOW: Final = 128 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the disk says when it is the disk's fault.
_OF_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that an image may have, all its layers together."""

    bytes: int = 16 << 30
    entries: int = 1_000_000


def hides_no_name(whiteout: str) -> bool:
    """Return whether a whiteout of one file names none, but its own folder or the one above."""
    return whiteout.removeprefix(WHITEOUT) in ("", ".", "..")


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(source: BinaryIO, media_type: str, target: Path, limits: Limits, name: str) -> str:
    """Unpack a layer into an empty folder; return the digest of the archive. Blocks.

    Args:
        source: The bytes of the layer's blob.
        media_type: Says how it is compressed.
        target: The folder.
        limits: The most that it may have.
        name: For errors.

    Raises:
        InvalidImage: The layer is malformed or hostile; what was unpacked is left to the caller.
        StoreFailed: The disk refused.
    """
    archive = _Archive(_decompressed(source, media_type, name), limits, name)
    try:
        with (
            contextlib.closing(_Folder(target, archive.count_made)) as folder,
            tarfile.open(
                fileobj=cast(IO[bytes], archive), mode="r|", encoding="utf-8", errors="surrogateescape"
            ) as tar,
        ):
            for entry in _entries(tar, archive):
                _Extraction(folder, tar, entry, name).run()
                archive.expect_header()
        archive.drain()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InvalidImage(f"{name}: damaged layer: {exc}") from exc
    except (UnicodeError, ValueError, RecursionError) as exc:
        raise InvalidImage(f"{name}: malformed layer: {exc}") from exc
    except OSError as exc:
        if exc.errno in _OF_DISK:
            raise StoreFailed(f"{name}: {exc.strerror} while it was unpacked to {target}") from exc
        raise InvalidImage(f"{name}: {exc.strerror or exc}: {exc.filename or ''}") from exc
    return archive.digest


def _decompressed(source: BinaryIO, media_type: str, name: str) -> _Reader:
    match LAYER_TYPES.get(media_type):
        case "gzip":
            return gzip.GzipFile(fileobj=source, mode="rb")
        case "zstd":
            return _Zstd(source, name)
        case "":
            return source
        case _:
            raise InvalidImage(f"{name}: unknown media type {media_type!r} of a layer")


class _Zstd:
    """A stream that is compressed with Zstandard."""

    def __init__(self, source: BinaryIO, name: str) -> None:
        import zstandard  # a library for the few layers that need it

        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._reader = decompressor.stream_reader(source, read_across_frames=True)
        self._name = name

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as exc:
            raise InvalidImage(f"{self._name}: damaged layer: {exc}") from exc


class _Archive:
    """The bytes of the archive: hashed and counted. While a header is read, few of them are handed out."""

    def __init__(self, source: _Reader, limits: Limits, name: str) -> None:
        self._source = source
        self._limits = limits
        self._name = name
        self._hash = hashlib.sha256()
        self._size = 0
        self._entries = 0
        self._header_end: int | None = _MAX_HEADER_BYTES

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        self._size += len(data)
        if self._size > self._limits.bytes:
            raise ImageTooLarge(f"{self._name}: more than {self._limits.bytes} bytes")
        if self._header_end is not None and self._size > self._header_end:
            raise InvalidImage(f"{self._name}: the description of a file takes more than {_MAX_HEADER_BYTES} bytes")
        return data

    def expect_header(self) -> None:
        """Allow no more than the description of one file from here."""
        self._header_end = self._size + _MAX_HEADER_BYTES

    def count(self, size: int) -> None:
        """Count a file of this size, whose content comes now."""
        self.count_made()
        self._header_end = None
        if size > self._limits.bytes:  # a sparse file may be longer than the archive
            raise ImageTooLarge(f"{self._name}: a file of {size} bytes; the limit is {self._limits.bytes}")

    def count_made(self) -> None:
        """Count a file or a folder, also one that only the path of another names."""
        self._entries += 1
        if self._entries > self._limits.entries:
            raise ImageTooLarge(f"{self._name}: more than {self._limits.entries} files")

    def drain(self) -> None:
        """Read what follows the end of the archive: it is part of the digest."""
        self._header_end = None
        while self.read(_CHUNK):
            pass


def _entries(tar: tarfile.TarFile, archive: _Archive) -> Iterator[tarfile.TarInfo]:
    known: list[tarfile.TarInfo] = vars(tar)["members"]
    while (entry := tar.next()) is not None:
        known.clear()  # the library would keep all of them in memory
        archive.count(entry.size)
        yield entry


class _Folder:
    """The folder that a layer is unpacked to, with the last folder that was used below it.

    Args:
        path: The folder.
        count_made: Called for each folder that is made because a path goes through it.
    """

    def __init__(self, path: Path, count_made: Callable[[], None]) -> None:
        self._root = os.open(path, _FOLDER)
        self._count_made = count_made
        self._last: tuple[tuple[str, ...], int] | None = None

    def close(self) -> None:
        self._let_go()
        os.close(self._root)

    def enter(self, parts: tuple[str, ...]) -> int:
        """Return the descriptor of a folder, made if it is missing; valid until the next call.

        Raises:
            OSError: A part of the way is a link or a file.
        """
        if self._last is not None and self._last[0] == parts:
            return self._last[1]
        current = os.dup(self._root)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    _make_folder(part, current)
                    self._count_made()
                below = os.open(part, _FOLDER, dir_fd=current)
                os.close(current)
                current = below
        except BaseException:
            os.close(current)
            raise
        self._let_go()
        self._last = parts, current
        return current

    def _let_go(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None


class _Extraction:
    """One entry of a layer on its way to the disk."""

    def __init__(self, folder: _Folder, tar: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> None:
        self._folder = folder
        self._tar = tar
        self._entry = entry
        self._name = name

    def run(self) -> None:
        """Unpack it.

        Raises:
            InvalidImage: It would land outside, or replace what it must not.
            OSError: The system refused.
        """
        entry = self._entry
        parts = self._parts(entry.name)
        if not parts:
            return
        *above, last = parts
        if last.startswith(_METADATA) and last != OPAQUE:
            return
        parent = self._enter(tuple(above), entry.name)
        if last.startswith(WHITEOUT):
            if last != OPAQUE and hides_no_name(last):
                raise InvalidImage(f"{self._name}: {entry.name!r} hides no name")
            _remove(last, parent)
            os.close(os.open(last, _NEW, 0o644, dir_fd=parent))
        elif entry.isdir():
            _replace_by_folder(last, parent)
        elif entry.issym():
            _remove(last, parent)
            os.symlink(entry.linkname, last, dir_fd=parent)
        elif entry.islnk():
            self._link(tuple(above), last)
        elif entry.isfile():
            self._write(last, parent)

    def _parts(self, path: str) -> tuple[str, ...]:
        if path.startswith("/"):
            raise InvalidImage(f"{self._name}: {path!r} is an absolute path")
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts:
            raise InvalidImage(f"{self._name}: {path!r} leaves the layer")
        if len(parts) > _MAX_DEPTH:
            raise InvalidImage(f"{self._name}: {path[:60]!r}... is deeper than {_MAX_DEPTH} folders")
        if any("\0" in part for part in parts):
            raise InvalidImage(f"{self._name}: {path!r} is no name of a file")
        return parts

    def _enter(self, parts: tuple[str, ...], path: str) -> int:
        try:
            return self._folder.enter(parts)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                raise InvalidImage(f"{self._name}: {path!r} goes through a link or a file") from exc
            raise

    def _link(self, above: tuple[str, ...], last: str) -> None:
        wanted = self._entry.linkname
        target = self._parts(wanted)
        if not target:
            raise InvalidImage(f"{self._name}: {self._entry.name!r} is a hard link to {wanted!r}, which is no file")
        source = os.dup(self._enter(target[:-1], wanted))
        try:
            try:
                is_file = stat.S_ISREG(os.lstat(target[-1], dir_fd=source).st_mode)
            except FileNotFoundError:
                is_file = False
            if not is_file:
                raise InvalidImage(
                    f"{self._name}: {self._entry.name!r} is a hard link to {wanted!r}, which is no file of the layer"
                )
            if (*above, last) == target:
                return
            parent = self._enter(above, self._entry.name)
            _remove(last, parent)
            os.link(target[-1], last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _write(self, last: str, parent: int) -> None:
        entry = self._entry
        _remove(last, parent)
        made = os.open(last, _NEW, 0o755 if entry.mode & 0o111 else 0o644, dir_fd=parent)
        with os.fdopen(made, "wb", buffering=0) as file:
            os.fchmod(made, 0o755 if entry.mode & 0o111 else 0o644)  # whatever this process masks
            content = self._tar.extractfile(entry)
            if content is None:
                return
            left = entry.size
            while left:
                data = content.read(min(left, _CHUNK))
                if not data:
                    raise EOFError(f"{entry.name!r} ends {left} bytes too early")
                file.write(data)
                left -= len(data)


def _make_folder(last: str, parent: int) -> None:
    os.mkdir(last, 0o755, dir_fd=parent)
    os.chmod(last, 0o755, dir_fd=parent)  # noqa: S103  # whatever this process masks


def _replace_by_folder(last: str, parent: int) -> None:
    try:
        _make_folder(last, parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(last, dir_fd=parent).st_mode):
            os.unlink(last, dir_fd=parent)
            _make_folder(last, parent)


def _remove(last: str, parent: int) -> None:
    """Make room for an entry that comes again; a folder is not replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(last, dir_fd=parent)
