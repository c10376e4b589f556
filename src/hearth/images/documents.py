"""Manifests, indexes and configurations of images (OCI image specification 1.1, and their Docker forms)."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeVar

import msgspec

from hearth.images.errors import InvalidImage

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES: Final = frozenset({MANIFEST_TYPE, _DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({INDEX_TYPE, _DOCKER_LIST})
CONFIG_TYPES: Final = frozenset({CONFIG_TYPE, "application/vnd.docker.container.image.v1+json"})
#: Media types of layers, each with its compression.
LAYER_TYPES: Final = {
    "application/vnd.oci.image.layer.v1.tar": "",
    LAYER_TYPE: "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
#: The annotation of an entry of index.json that names it.
REF_NAME: Final = "org.opencontainers.image.ref.name"
#: The longest manifest, index or configuration, in bytes.
MAX_DOCUMENT_BYTES: Final = 4 << 20

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The machine that an image runs on."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A reference to a blob by its digest."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""

    @property
    def name(self) -> str:
        """The name of an entry of index.json; empty if it has none."""
        return self.annotations.get(REF_NAME, "")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One image: its configuration and its layers, the lowest first."""

    schema_version: int = 2
    media_type: str = MANIFEST_TYPE
    config: Descriptor
    layers: list[Descriptor]

    @property
    def blobs(self) -> list[Descriptor]:
        """Everything that it refers to."""
        return [self.config, *self.layers]


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Several manifests: of one image for several platforms, or of a whole layout."""

    schema_version: int = 2
    media_type: str = INDEX_TYPE
    manifests: list[Descriptor]


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """The part of a configuration that says how to run an image. JSON of Docker has null for what is not set."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of the uncompressed layers, the lowest first."""

    type: str = "layers"
    diff_ids: list[str] = msgspec.field(default_factory=list)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of an image."""

    architecture: str
    os: str
    config: RunConfig | None = None
    rootfs: RootFs

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image."""
        return (self.config.labels if self.config is not None else None) or {}


class _Kind(msgspec.Struct, rename="camel"):
    """The fields by which a document says what it is."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[msgspec.Raw] | None = None


def is_digest(text: str) -> bool:
    """Return whether a text is a digest that Hearth knows: ``sha256:`` and 64 small hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def digest_of_bytes(data: bytes) -> str:
    """Return the digest of a document."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_manifest(data: bytes, name: str, media_type: str = "") -> Manifest | Index:
    """Return a manifest or an index.

    Args:
        data: Its bytes.
        name: For errors.
        media_type: The type that its sender or a descriptor gives; empty: unknown.

    Raises:
        InvalidImage: It is neither, or wrong.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidImage(f"{name}: a manifest of {len(data)} bytes; the limit is {MAX_DOCUMENT_BYTES}")
    kind = _decode(data, _Kind, name)
    stated = kind.media_type or media_type
    if media_type and kind.media_type and kind.media_type != media_type:
        raise InvalidImage(f"{name}: sent as {media_type}, but mediaType is {kind.media_type}")
    if not stated:
        stated = MANIFEST_TYPE if kind.manifests is None else INDEX_TYPE
    if stated in INDEX_TYPES:
        index = _decode(data, Index, name)
        _check(index.manifests, name)
        return index
    if stated not in MANIFEST_TYPES:
        raise InvalidImage(f"{name}: unknown media type {stated!r}")
    if kind.schema_version != 2:
        raise InvalidImage(f"{name}: schemaVersion is {kind.schema_version}, not 2")
    manifest = _decode(data, Manifest, name)
    _check(manifest.blobs, name)
    return manifest


def read_config(data: bytes, name: str) -> Config:
    """Return the configuration of an image.

    Raises:
        InvalidImage: It is malformed.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidImage(f"{name}: a configuration of {len(data)} bytes; the limit is {MAX_DOCUMENT_BYTES}")
    config = _decode(data, Config, name)
    if config.rootfs.type != "layers" or not all(is_digest(digest) for digest in config.rootfs.diff_ids):
        raise InvalidImage(f"{name}: rootfs is not a list of layers with sha256 digests")
    return config


def encode(document: msgspec.Struct) -> bytes:
    """Return the JSON of a document; equal documents have equal bytes."""
    return msgspec.json.encode(document, order="deterministic")


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidImage(f"{name}: {exc}") from exc


def _check(descriptors: list[Descriptor], name: str) -> None:
    for descriptor in descriptors:
        if not is_digest(descriptor.digest):
            raise InvalidImage(f"{name}: {descriptor.digest!r} is no sha256 digest")
        if descriptor.size < 0:
            raise InvalidImage(f"{name}: {descriptor.digest} has the size {descriptor.size}")
