"""Remove what nothing needs from an image store.

Needed are the manifests of functions, of versions that one may roll back to, of accepted calls and of containers, and
everything that they refer to. All else stays for a grace time after somebody last relied on it: a client that pushes
first blobs and then their manifest, or that was answered that a blob is there, has that long.

The index is replaced before a blob goes, so whatever ends a collection leaves no name without its blobs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from hearth.images.documents import Descriptor
from hearth.images.errors import ImageStoreError, StoreFailed
from hearth.images.layout import ImageStore
from hearth.images.repositories import forget_missing


class Collected(msgspec.Struct, kw_only=True):
    """The result of a collection.

    Attributes:
        names: Of index.json; a manifest without a name by its digest.
        blobs: Digests.
        layers: Folders of unpacked layers.
        bytes: Of the blobs.
    """

    names: list[str] = []
    blobs: list[str] = []
    layers: list[Path] = []
    bytes: int = 0


def note_use(store: ImageStore, needed: Collection[str]) -> None:
    """Note that manifests are needed now: the grace time of each begins when that was last so. Blocks shortly."""
    for digest in needed:
        for reached in store.reachable(digest):
            with contextlib.suppress(ImageStoreError):
                store.blobs.renew(reached)


def collect(
    store: ImageStore, needed: Collection[str], *, before: float, layers: Path | None = None, dry_run: bool = False
) -> Collected:
    """Remove what nothing needs and nobody relied on since ``before``; return what it was. Blocks.

    Args:
        store: The store.
        needed: Digests of manifests.
        before: Seconds since the epoch.
        layers: The folder of unpacked layers, which go with their images.
        dry_run: Return what would be removed, and remove nothing.

    Raises:
        StoreFailed: The disk refused.
        InvalidImage: The index is damaged; nothing is removed.
    """
    done = Collected()
    if not store.exists:
        return done
    with store.blobs.locked(exclusive=True):
        times = {digest: path.stat() for digest, path in store.blobs.all()}

        def stays(entry: Descriptor) -> bool:
            return entry.digest in needed or (entry.digest in times and times[entry.digest].st_mtime >= before)

        entries = store.entries()
        kept = [entry for entry in entries if stays(entry)]
        done.names = [entry.name or entry.digest for entry in entries if not stays(entry)]
        reached: set[str] = set()
        for digest in {*needed, *(entry.digest for entry in kept)}:
            reached.update(store.reachable(digest))
        doomed = [digest for digest, found in times.items() if digest not in reached and found.st_mtime < before]
        done.blobs, done.bytes = doomed, sum(times[digest].st_size for digest in doomed)
        if not dry_run:
            if done.names:
                store.write_entries(kept)
            _unlink(store, doomed)
            _drop_uploads(store, before)
            forget_missing(store)
        if layers is not None and layers.is_dir():
            done.layers = _old_layers(store, reached, layers, before)
            if not dry_run:
                for folder in done.layers:
                    _drop_folder(folder)
    return done


def _unlink(store: ImageStore, doomed: Collection[str]) -> None:
    for digest in doomed:
        path = store.blobs.path(digest)
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc


def _drop_uploads(store: ImageStore, before: float) -> None:
    for path in store.blobs.uploads.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= before:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)  # of a build
            else:
                path.unlink()


def _old_layers(store: ImageStore, reached: Collection[str], folder: Path, before: float) -> list[Path]:
    """Return the folders of layers that no remaining image has, and of layers that were never finished."""
    wanted: set[str] = set()
    for digest in reached:
        with contextlib.suppress(ImageStoreError):  # a layer is no manifest
            if store.blobs.path(digest).stat().st_size <= 4 << 20:
                wanted.update(store.image(digest).layer_names)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in wanted and path.is_dir() and path.stat().st_mtime < before
    ]


def _drop_folder(folder: Path) -> None:
    doomed = folder.with_name(f".removing-{folder.name}")
    with contextlib.suppress(OSError):
        os.rename(folder, doomed)  # at once, so that no image is made of half of it
        shutil.rmtree(doomed, ignore_errors=True)
