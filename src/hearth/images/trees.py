"""Folders that show images: each layer is unpacked once, and images are trees of hard links to its files.

A layer lies in a folder named by the digest of its archive, whiteouts included. Both layers and trees are made beside
their place and renamed to it when they are whole, so what a killed process leaves is never taken for one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hearth.images.errors import BlobNotFound, InvalidImage, StoreFailed, WrongDigest
from hearth.images.layout import Image, ImageStore
from hearth.images.unpack import OPAQUE, WHITEOUT, Limits, hides_no_name, unpack

#: Begins the name of a folder that is not whole yet.
MAKING: Final = ".making-"
#: What file systems say that take no further hard link to a file.
_NO_LINK: Final = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP})


class Layers:
    """The unpacked layers of a store.

    Args:
        store: Has their blobs.
        folder: Where they are unpacked.
        limits: The most that an image may have.
    """

    def __init__(self, store: ImageStore, folder: Path, limits: Limits | None = None) -> None:
        self._store = store
        self._limits = limits or Limits()
        self.folder = folder

    def unpack(self, image: Image) -> list[Path]:
        """Return the folders of an image's layers, the lowest first; those that are missing are unpacked. Blocks.

        Raises:
            BlobNotFound: The store lacks one.
            InvalidImage: One is malformed or hostile, or not the one that the configuration names.
            StoreFailed: The disk refused.
        """
        found = []
        self._make_folder()
        size = sum(layer.size for layer in image.manifest.layers)
        if size > self._limits.bytes:
            raise InvalidImage(f"{image.digest}: {size} bytes of layers; the limit is {self._limits.bytes}")
        diff_ids = image.config.rootfs.diff_ids
        for layer, diff_id, name in zip(image.manifest.layers, diff_ids, image.layer_names, strict=True):
            place = self.folder / name
            if not place.is_dir():
                self._unpack(layer.digest, layer.media_type, diff_id, place)
            with contextlib.suppress(OSError):
                os.utime(place)
            found.append(place)
        return found

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            self.folder.chmod(0o711)
        except PermissionError:  # another user's
            return
        except OSError as exc:
            raise StoreFailed(f"{self.folder}: {exc.strerror or exc}") from exc

    def _unpack(self, digest: str, media_type: str, diff_id: str, place: Path) -> None:
        made = _temporary(self.folder)
        try:
            with self._store.blobs.open(digest) as blob:
                found = unpack(blob, media_type, made, self._limits, digest)
            if found != diff_id:
                raise WrongDigest(diff_id, found)
            _put_in_place(made, place)
        except OSError as exc:
            raise StoreFailed(f"{place}: {exc.strerror or exc}") from exc
        finally:
            shutil.rmtree(made, ignore_errors=True)


def make_tree(layers: Sequence[Path], target: Path) -> None:
    """Fill an empty folder with what a container sees: the layers upon each other. Blocks.

    Raises:
        InvalidImage: A layer is hostile.
        StoreFailed: The disk refused.
        BlobNotFound: A layer was collected meanwhile.
    """
    try:
        for layer in layers:
            _lay_over(layer, target)
    except FileNotFoundError as exc:
        raise BlobNotFound(f"{exc.filename}") from exc
    except OSError as exc:
        raise StoreFailed(f"{target}: {exc.strerror or exc}") from exc


def _lay_over(layer: Path, target: Path) -> None:
    """Add a folder of a layer to the same folder of the tree. Folders of the tree are real ones, never links."""
    with os.scandir(layer) as found:
        entries = list(found)
    names = {entry.name for entry in entries}
    if OPAQUE in names:
        for hidden in target.iterdir():
            _remove(hidden)
    for name in names:
        if name.startswith(WHITEOUT) and name != OPAQUE:
            if hides_no_name(name):  # of a layer that an earlier release has unpacked
                raise InvalidImage(f"{layer.name}: {name!r} hides no name")
            _remove(target / name.removeprefix(WHITEOUT))
    for entry in entries:
        if entry.name.startswith(WHITEOUT):
            continue
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if place.is_symlink() or not place.is_dir():
                _remove(place)
                place.mkdir()
            place.chmod(stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode))
            _lay_over(Path(entry.path), place)
        else:
            _remove(place)
            _link(entry, place)


def _link(entry: os.DirEntry[str], place: Path) -> None:
    if entry.is_symlink():
        place.symlink_to(os.readlink(entry.path))
        return
    try:
        os.link(entry.path, place, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINK:
            raise
        shutil.copy2(entry.path, place, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _temporary(folder: Path) -> Path:
    try:
        made = Path(tempfile.mkdtemp(prefix=MAKING, dir=folder))
        made.chmod(0o755)
    except OSError as exc:
        raise StoreFailed(f"{folder}: {exc.strerror or exc}") from exc
    return made


def _put_in_place(made: Path, place: Path) -> None:
    """Rename a whole folder to its place; another process may have been faster."""
    try:
        made.rename(place)
    except OSError as exc:
        if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
