"""The image store of a data folder: an OCI image layout, which skopeo, oras and umoci read as well.

``blobs/sha256/`` holds manifests, configurations and layers; ``index.json`` names manifests: ``name:tag``, or
``name@sha256:...`` for a build of an earlier release. Several processes may use one store at once: blobs are added
under a shared lock, the index is replaced under an exclusive one, whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from hearth.host import machine, private_files
from hearth.images.blobs import Blobs
from hearth.images.documents import (
    INDEX_TYPES,
    MANIFEST_TYPE,
    REF_NAME,
    Config,
    Descriptor,
    Index,
    Manifest,
    encode,
    read_config,
    read_manifest,
)
from hearth.images.errors import BlobNotFound, ImageStoreError, InvalidImage, StoreFailed

_CHUNK: Final = 1 << 20
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the store: everything but its layers' content."""

    digest: str
    manifest: Manifest
    config: Config

    @property
    def layer_names(self) -> list[str]:
        """Return the names of the folders in which its layers are unpacked, the lowest first.

        Each is that of a blob with what it unpacks to: an image that only claims a layer finds nothing of it.
        """
        pairs = zip(self.manifest.layers, self.config.rootfs.diff_ids, strict=True)
        return [f"{layer.digest}-{diff_id.partition(':')[2]}".replace(":", "-") for layer, diff_id in pairs]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A damage that :meth:`ImageStore.verify` has found."""

    subject: str
    reason: str


class ImageStore:
    """The images of one data folder. All methods block.

    Args:
        root: The folder of the layout; made when it is first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self._index = root / "index.json"

    def make(self) -> None:
        """Make an empty layout, unless there is one.

        Raises:
            StoreFailed: It cannot be made.
        """
        self.blobs.make()
        try:
            private_files.create(self.root / "oci-layout", _LAYOUT.decode())
            private_files.create(self._index, encode(Index(manifests=[])).decode())
        except OSError as exc:
            raise StoreFailed(f"{exc.filename or self.root}: {exc.strerror or exc}") from exc

    @property
    def exists(self) -> bool:
        """True if there is a layout."""
        return self._index.is_file()

    def entries(self) -> list[Descriptor]:
        """Return the named manifests.

        Raises:
            InvalidImage: index.json is damaged.
            StoreFailed: It cannot be read.
        """
        try:
            data = self._index.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise StoreFailed(f"{self._index}: {exc.strerror or exc}") from exc
        found = read_manifest(data, str(self._index))
        if not isinstance(found, Index):
            raise InvalidImage(f"{self._index}: not an index")
        return found.manifests

    def resolve(self, name: str) -> str | None:
        """Return the digest of the manifest with a name of index.json; ``None`` if there is none."""
        return next((entry.digest for entry in self.entries() if entry.name == name), None)

    def put_manifest(self, data: bytes, names: Collection[str] = (), media_type: str = "") -> str:
        """Store a manifest whose blobs are all there, and give it names; return its digest.

        Names that mean another manifest mean this one from now on.

        Raises:
            InvalidImage: It is malformed.
            BlobNotFound: The store lacks a blob that it refers to.
            StoreFailed: The disk refused.
        """
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        document = read_manifest(data, digest, media_type)
        for descriptor in _referred(document):
            size = self.blobs.renew(descriptor.digest)
            if size is None:
                raise BlobNotFound(descriptor.digest)
            if size != descriptor.size:
                raise InvalidImage(f"{digest}: {descriptor.digest} has {size} bytes, not {descriptor.size}")
        self.blobs.add(data)
        stated = document.media_type or media_type or MANIFEST_TYPE
        self.name(Descriptor(media_type=stated, digest=digest, size=len(data)), names)
        return digest

    def name(self, descriptor: Descriptor, names: Collection[str]) -> None:
        """Give names to a manifest of the store; without a name, it is listed without one."""

        def changed(entries: list[Descriptor]) -> list[Descriptor]:
            kept = [entry for entry in entries if entry.name not in names]
            if names:
                kept = [entry for entry in kept if entry.name or entry.digest != descriptor.digest]
            elif any(entry.digest == descriptor.digest for entry in entries):
                return entries
            annotations: list[dict[str, str]] = [{REF_NAME: name} for name in sorted(names)] or [{}]
            return [*kept, *(msgspec.structs.replace(descriptor, annotations=found) for found in annotations)]

        self.change(changed)

    def forget(self, names: Collection[str]) -> None:
        """Remove names; the manifests that lose their last one are left to collection."""
        self.change(lambda entries: [entry for entry in entries if entry.name not in names])

    def change(self, change: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        """Replace the entries of index.json by what ``change`` makes of them.

        Raises:
            StoreFailed: The disk refused.
        """
        with self.blobs.locked(exclusive=True):
            before = self.entries()
            after = change(list(before))
            if after != before:
                self.write_entries(after)

    def write_entries(self, entries: list[Descriptor]) -> None:
        """Replace index.json; the caller holds the exclusive lock."""
        try:
            private_files.replace(self._index, encode(Index(manifests=entries)).decode())
        except OSError as exc:
            raise StoreFailed(f"{self._index}: {exc.strerror or exc}") from exc

    def manifest(self, digest: str) -> Manifest | Index:
        """Return a manifest or an index of the store.

        Raises:
            BlobNotFound: There is none.
            InvalidImage: The blob is something else.
        """
        return read_manifest(self.blobs.read_document(digest), digest)

    def image(self, digest: str) -> Image:
        """Return an image for this machine; of an index, the one for its architecture.

        Raises:
            BlobNotFound: A document is missing.
            InvalidImage: There is no image for this machine, or a document is malformed.
        """
        document = self.manifest(digest)
        if isinstance(document, Index):
            digest = choose_platform(document, digest)
            document = self.manifest(digest)
            if isinstance(document, Index):
                raise InvalidImage(f"{digest}: an index within an index")
        config = read_config(self.blobs.read_document(document.config.digest), document.config.digest)
        if len(config.rootfs.diff_ids) != len(document.layers):
            raise InvalidImage(
                f"{digest}: {len(document.layers)} layers, but {len(config.rootfs.diff_ids)} digests of them"
            )
        return Image(digest=digest, manifest=document, config=config)

    def reachable(self, digest: str) -> Iterator[str]:
        """Yield the digests of a manifest and of all that it refers to, as far as they are there."""
        yield digest
        try:
            document = self.manifest(digest)
        except ImageStoreError:  # gone, or no manifest: nothing more is known
            return
        for descriptor in _referred(document):
            if isinstance(document, Index):
                yield from self.reachable(descriptor.digest)
            else:
                yield descriptor.digest

    def verify(self) -> Iterator[Fault]:
        """Read everything again; yield each damage."""
        sizes: dict[str, int] = {}
        for digest, path in self.blobs.all():
            found, size = _hash(path)
            sizes[digest] = size
            if found != digest:
                yield Fault(subject=digest, reason=f"damaged: its content has the digest {found}")
        seen: set[str] = set()
        for entry in self.entries():
            yield from self._verify_entry(entry, entry.name or entry.digest, sizes, seen)

    def _verify_entry(self, entry: Descriptor, name: str, sizes: dict[str, int], seen: set[str]) -> Iterator[Fault]:
        if entry.digest not in sizes:
            yield Fault(subject=name, reason=f"{entry.digest} is missing")
            return
        if sizes[entry.digest] != entry.size:
            yield Fault(subject=name, reason=f"{entry.digest} has {sizes[entry.digest]} bytes, not {entry.size}")
        if entry.digest in seen or entry.media_type not in INDEX_TYPES | {MANIFEST_TYPE, ""}:
            return
        seen.add(entry.digest)
        try:
            document = self.manifest(entry.digest)
        except ImageStoreError as exc:
            yield Fault(subject=name, reason=str(exc))
            return
        for descriptor in _referred(document):
            if isinstance(document, Index):
                if descriptor.digest in sizes or _is_for_here(descriptor):  # a pull gets one platform
                    yield from self._verify_entry(descriptor, name, sizes, seen)
            elif descriptor.digest not in sizes:
                yield Fault(subject=name, reason=f"{descriptor.digest} is missing")
            elif sizes[descriptor.digest] != descriptor.size:
                size = sizes[descriptor.digest]
                yield Fault(subject=name, reason=f"{descriptor.digest} has {size} bytes, not {descriptor.size}")


def choose_platform(index: Index, name: str) -> str:
    """Return the digest of the manifest for this machine.

    Raises:
        InvalidImage: There is none.
    """
    wanted = machine.architecture()
    for entry in index.manifests:
        if _is_for_here(entry):
            return entry.digest
    offered = sorted(
        f"{entry.platform.os}/{entry.platform.architecture}" for entry in index.manifests if entry.platform is not None
    )
    raise InvalidImage(f"{name}: no image for linux/{wanted}, only for {', '.join(offered) or 'no known platform'}")


def _is_for_here(entry: Descriptor) -> bool:
    platform = entry.platform
    return platform is not None and (platform.os, platform.architecture) == ("linux", machine.architecture())


def _referred(document: Manifest | Index) -> list[Descriptor]:
    return document.manifests if isinstance(document, Index) else document.blobs


def _hash(path: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                found.update(data)
                size += len(data)
    except OSError as exc:
        raise StoreFailed(f"{path}: {exc.strerror or exc}") from exc
    return f"sha256:{found.hexdigest()}", size
