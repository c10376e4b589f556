"""Blobs: files named by the SHA-256 of their content.

A blob is written into a file of its own below ``uploads``, hashed on its way, made durable, and only then renamed to
its place. So a blob in place is whole, whatever ended its writer; what was not finished stays in ``uploads`` until it
is continued or collected.

The time of a blob says when somebody last relied on it: collection leaves new ones alone, and everyone who says that a
blob is there renews it under the lock that collection takes exclusively.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from hearth.host import private_files
from hearth.images.documents import MAX_DOCUMENT_BYTES, is_digest
from hearth.images.errors import BlobNotFound, ImageTooLarge, InvalidImage, StoreFailed, WrongDigest

_LOCK: Final = ".lock"
_CHUNK: Final = 1 << 20
_UPLOAD: Final = re.compile(r"[a-z0-9_]{8}", re.ASCII)


class Upload:
    """A blob that is being written: a file below ``uploads`` that only its owner writes.

    Attributes:
        name: Identifies it until it is finished.
        size: Bytes so far.
    """

    def __init__(self, blobs: Blobs, path: Path, file: BinaryIO, most_bytes: int | None) -> None:
        self._blobs = blobs
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self._most_bytes = most_bytes
        self.name = path.name
        self.size = 0

    @property
    def digest(self) -> str:
        """The digest of the bytes so far."""
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def is_closed(self) -> bool:
        """True once it was committed, suspended or dropped."""
        return self._file.closed

    def write(self, data: bytes) -> None:
        """Append bytes. Blocks shortly.

        Raises:
            ImageTooLarge: There are more than allowed.
            StoreFailed: The disk refused.
        """
        if self._most_bytes is not None and self.size + len(data) > self._most_bytes:
            raise ImageTooLarge(f"upload {self.name}: more than {self._most_bytes} bytes")
        try:
            self._file.write(data)
        except OSError as exc:
            raise StoreFailed(f"{self._path}: {exc.strerror or exc}") from exc
        self._hash.update(data)
        self.size += len(data)

    def reread(self) -> None:
        """Hash what an earlier owner has written. Blocks."""
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            self._hash.update(data)
            self.size += len(data)

    def commit(self, expected: str = "") -> str:
        """Put the blob in its place; return its digest. Blocks.

        Args:
            expected: The digest that it has to have; empty: any.

        Raises:
            WrongDigest: It has another one. The bytes are dropped.
            StoreFailed: The disk refused.
        """
        digest = self.digest
        if expected and expected != digest:
            self.drop()
            raise WrongDigest(expected, digest)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._blobs.put_in_place(self._path, digest)
        except OSError as exc:
            self.drop()
            raise StoreFailed(f"{digest}: {exc.strerror or exc}") from exc
        self._close()
        return digest

    def suspend(self) -> None:
        """Let go of the file; :meth:`Blobs.resume` continues."""
        self._close()

    def drop(self) -> None:
        """Forget it all. Idempotent."""
        self._close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def drop_unless_done(self) -> None:
        """Forget it all, unless it was committed or suspended."""
        if not self.is_closed:
            self.drop()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be flushed is not committed
            self._file.close()


class Blobs:
    """The blobs of a layout.

    Args:
        root: The folder of the layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs" / "sha256"
        self.uploads = root / "uploads"

    def make(self) -> None:
        """Make the folders. Blocks shortly.

        Raises:
            StoreFailed: They cannot be made.
        """
        try:
            private_files.make_folder(self.folder)
            private_files.make_folder(self.uploads)
        except OSError as exc:
            raise StoreFailed(f"{exc.filename or self.root}: {exc.strerror or exc}") from exc

    @contextlib.contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Keep collections out; exclusively, everyone else, too. Blocks."""
        try:
            lock = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreFailed(f"{self.root / _LOCK}: {exc.strerror or exc}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(lock)

    def path(self, digest: str) -> Path:
        """Return the place of a blob.

        Raises:
            BlobNotFound: No blob has such a digest.
        """
        if not is_digest(digest):
            raise BlobNotFound(digest)
        return self.folder / digest.partition(":")[2]

    def renew(self, digest: str) -> int | None:
        """Return the size of a blob that stays for now; ``None`` if there is none. Blocks shortly."""
        path = self.path(digest)
        with self.locked(exclusive=False):
            try:
                os.utime(path)
                return path.stat().st_size
            except FileNotFoundError:
                return None
            except OSError as exc:
                raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc

    def open(self, digest: str) -> BinaryIO:
        """Return an open blob, the caller's to close. Blocks shortly.

        Raises:
            BlobNotFound: There is none.
            StoreFailed: It cannot be read.
        """
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as exc:
            raise BlobNotFound(digest) from exc
        except OSError as exc:
            raise StoreFailed(f"{digest}: {exc.strerror or exc}") from exc

    def read_document(self, digest: str) -> bytes:
        """Return the bytes of a manifest or a configuration. Blocks shortly.

        Raises:
            BlobNotFound: There is none.
            InvalidImage: It is too long for a document.
            WrongDigest: It was damaged on the disk.
        """
        with self.open(digest) as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InvalidImage(f"{digest}: longer than {MAX_DOCUMENT_BYTES} bytes")
        if (found := f"sha256:{hashlib.sha256(data).hexdigest()}") != digest:
            raise WrongDigest(digest, found)
        return data

    def begin(self, most_bytes: int | None = None) -> Upload:
        """Return a new upload. Blocks shortly.

        Raises:
            StoreFailed: The disk refused.
        """
        try:
            descriptor, name = tempfile.mkstemp(prefix="", dir=self.uploads)  # its mode is 0600
        except OSError as exc:
            raise StoreFailed(f"{self.uploads}: {exc.strerror or exc}") from exc
        return Upload(self, Path(name), os.fdopen(descriptor, "w+b"), most_bytes)

    def resume(self, name: str, most_bytes: int | None = None) -> Upload | None:
        """Return an upload of an earlier owner, which must have let go of it; ``None`` if there is none. Blocks."""
        if _UPLOAD.fullmatch(name) is None:
            return None
        path = self.uploads / name
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc
        upload = Upload(self, path, file, most_bytes)
        upload.reread()
        return upload

    def add(self, data: bytes) -> str:
        """Store a short blob; return its digest. Blocks.

        Raises:
            StoreFailed: The disk refused.
        """
        upload = self.begin()
        try:
            upload.write(data)
            return upload.commit()
        except BaseException:
            upload.drop()
            raise

    def put_in_place(self, made: Path, digest: str) -> None:
        """Rename a durable file to the place of its digest, and renew what may be there already."""
        with self.locked(exclusive=False):
            os.utime(made)
            os.replace(made, self.path(digest))
            private_files.sync_folder(self.folder)

    def all(self) -> Iterator[tuple[str, Path]]:
        """Yield all blobs: digest and place. Blocks."""
        for path in sorted(self.folder.iterdir()):
            if is_digest(digest := f"sha256:{path.name}"):
                yield digest, path
