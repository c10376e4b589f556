"""Repositories: the part of an image store that the clients of one app see.

All repositories share the blobs, but a client reaches only those that were uploaded to, or mounted into, a repository
that it may use: empty files below ``repositories`` say which those are. Tags are names of index.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hearth.host import private_files
from hearth.images.blobs import Upload
from hearth.images.documents import Index, is_digest, read_manifest
from hearth.images.errors import BlobNotFound, ImageStoreError, StoreFailed, WrongDigest
from hearth.images.layout import ImageStore

_FOLDER: Final = "repositories"
_BLOBS: Final = "_blobs"
_MANIFESTS: Final = "_manifests"
#: Beside an upload: the name of the repository that it is for.
_OF: Final = ".of"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
#: The first part is the name of an app, which is less strict than the specification of registries.
_NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/{_PART})*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_MAX_NAME: Final = 255


def is_repository(name: str) -> bool:
    """Return whether a text may name a repository."""
    return len(name) <= _MAX_NAME and _NAME.fullmatch(name) is not None


def is_tag(text: str) -> bool:
    """Return whether a text may be a tag."""
    return _TAG.fullmatch(text) is not None


class Repository:
    """One repository. All methods block.

    Args:
        store: Has the blobs.
        name: A valid name.
    """

    def __init__(self, store: ImageStore, name: str) -> None:
        self._store = store
        self._folder = store.root / _FOLDER / name
        self.name = name

    @property
    def exists(self) -> bool:
        """True if something was ever stored in it."""
        return (self._folder / _BLOBS).is_dir()

    def size_of(self, digest: str) -> int | None:
        """Return the size of a blob of this repository, which stays for now; ``None`` if there is none.

        Raises:
            StoreFailed: The disk refused.
        """
        if not is_digest(digest) or not self._link(_BLOBS, digest).exists():
            return None
        return self._store.blobs.renew(digest)

    def add(self, digest: str) -> None:
        """Let this repository have a blob of the store.

        Raises:
            StoreFailed: The disk refused.
        """
        self._touch(self._link(_BLOBS, digest))

    def remove_blob(self, digest: str) -> bool:
        """Take a blob out of this repository; return whether it was there."""
        return is_digest(digest) and _unlink(self._link(_BLOBS, digest))

    def put_manifest(self, data: bytes, reference: str, media_type: str) -> str:
        """Store a manifest under a tag, or under its digest; return that digest.

        Raises:
            WrongDigest: The reference is another digest.
            InvalidImage: It is malformed.
            BlobNotFound: The repository lacks what it refers to.
            StoreFailed: The disk refused.
        """
        expected = reference if is_digest(reference) else ""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if expected and digest != expected:
            raise WrongDigest(expected, digest)
        document = read_manifest(data, digest, media_type)
        is_index = isinstance(document, Index)
        referred = document.manifests if isinstance(document, Index) else document.blobs
        for descriptor in referred:
            if not self._link(_MANIFESTS if is_index else _BLOBS, descriptor.digest).exists():
                raise BlobNotFound(descriptor.digest)
        self._store.put_manifest(data, [] if expected else [f"{self.name}:{reference}"], media_type)
        self._touch(self._link(_MANIFESTS, digest))
        self._touch(self._link(_BLOBS, digest))
        return digest

    def manifest(self, reference: str) -> tuple[str, str, bytes]:
        """Return the digest, the media type and the bytes of a manifest.

        Raises:
            BlobNotFound: There is none with this tag or digest.
        """
        digest = reference if is_digest(reference) else self._store.resolve(f"{self.name}:{reference}")
        if digest is None or not self._link(_MANIFESTS, digest).exists():
            raise BlobNotFound(reference)
        data = self._store.blobs.read_document(digest)
        self._store.blobs.renew(digest)
        return digest, read_manifest(data, digest).media_type, data

    def remove_manifest(self, reference: str) -> bool:
        """Remove a tag, or a manifest with all its tags; return whether it was there."""
        if not is_digest(reference):
            if self._store.resolve(f"{self.name}:{reference}") is None:
                return False
            self._store.forget([f"{self.name}:{reference}"])
            return True
        if not _unlink(self._link(_MANIFESTS, reference)):
            return False
        _unlink(self._link(_BLOBS, reference))
        tags = {entry.name for entry in self._store.entries() if entry.digest == reference and self._is_own(entry.name)}
        self._store.forget(tags)
        return True

    def tags(self) -> list[str]:
        """Return the tags in their order."""
        names = [entry.name for entry in self._store.entries() if self._is_own(entry.name)]
        return sorted(name.rpartition(":")[2] for name in names)

    def begin(self, most_bytes: int | None) -> Upload:
        """Return a new upload that only this repository continues.

        Raises:
            StoreFailed: The disk refused.
        """
        upload = self._store.blobs.begin(most_bytes)
        try:
            self._note(upload.name).write_text(self.name)
        except OSError as exc:
            upload.drop()
            raise StoreFailed(f"{self._note(upload.name)}: {exc.strerror or exc}") from exc
        return upload

    def resume(self, name: str, most_bytes: int | None) -> Upload | None:
        """Return an upload of this repository that nobody holds; ``None`` if there is none.

        Raises:
            StoreFailed: The disk refused.
        """
        upload = self._store.blobs.resume(name, most_bytes)
        if upload is not None and not self.owns(name):
            upload.suspend()
            return None
        return upload

    def finish(self, upload: Upload, digest: str) -> None:
        """Put an upload in its place in this repository.

        Raises:
            WrongDigest: It has another digest; its bytes are dropped.
            StoreFailed: The disk refused.
        """
        try:
            upload.commit(digest)
            self.add(digest)
        finally:
            self._note(upload.name).unlink(missing_ok=True)

    def drop(self, upload: Upload) -> None:
        """Forget an upload."""
        upload.drop()
        self._note(upload.name).unlink(missing_ok=True)

    def owns(self, name: str) -> bool:
        """Return whether an upload is this repository's."""
        return self._owner(name) == self.name

    def _owner(self, name: str) -> str:
        try:
            os.utime(self._note(name))  # it stays as long as its upload goes on
            return self._note(name).read_text()
        except OSError:
            return ""

    def _note(self, name: str) -> Path:
        return self._store.blobs.uploads / f"{name}{_OF}"

    def _is_own(self, name: str) -> bool:
        repository, colon, _ = name.rpartition(":")
        return bool(colon) and repository == self.name

    def _link(self, kind: str, digest: str) -> Path:
        return self._folder / kind / digest.partition(":")[2]

    def _touch(self, path: Path) -> None:
        try:
            private_files.make_folder(path.parent)
            path.touch(0o600)
        except OSError as exc:
            raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc


def forget_missing(store: ImageStore) -> None:
    """Take out of all repositories what the store does not have any more. Blocks."""
    for where, folders, files in os.walk(store.root / _FOLDER):
        if os.path.basename(where) in (_BLOBS, _MANIFESTS):
            folders.clear()
            for name in files:
                with contextlib.suppress(OSError, ImageStoreError):
                    if not store.blobs.path(f"sha256:{name}").exists():
                        os.unlink(os.path.join(where, name))


def repositories(store: ImageStore) -> Iterator[str]:
    """Yield the names of all repositories. Blocks."""
    root = store.root / _FOLDER
    for where, folders, _ in os.walk(root):
        if _BLOBS in folders:
            yield os.path.relpath(where, root)
        folders[:] = sorted(name for name in folders if name not in (_BLOBS, _MANIFESTS))


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc
    return True
