"""Images and layers made by hand, also such as no builder makes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from hearth.host import machine
from hearth.images.documents import (
    CONFIG_TYPE,
    LAYER_TYPE,
    Config,
    Descriptor,
    Manifest,
    RootFs,
    RunConfig,
    encode,
)
from hearth.images.layout import ImageStore
from hearth.images.unpack import Limits, unpack

ZSTD_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
TAR_TYPE = "application/vnd.oci.image.layer.v1.tar"


def entry(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of a layer: a file unless its type says otherwise."""
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """The bytes of a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def compressed(data: bytes, media_type: str) -> bytes:
    """The bytes of a layer's blob."""
    if media_type == LAYER_TYPE:
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if media_type == ZSTD_TYPE else data


def unpacked(blob: bytes, target: Path, media_type: str = TAR_TYPE, **limits: int) -> str:
    """Unpack a blob into a new folder; the digest of the archive."""
    target.mkdir(exist_ok=True)
    return unpack(io.BytesIO(blob), media_type, target, Limits(**limits), "layer")


def put_image(
    store: ImageStore,
    archives: Sequence[bytes],
    names: Sequence[str] = (),
    media_type: str = LAYER_TYPE,
    architecture: str = "",
    **run: Any,
) -> str:
    """Store an image with these layers; its digest."""
    layers, diff_ids = [], []
    for data in archives:
        blob = compressed(data, media_type)
        layers.append(Descriptor(media_type=media_type, digest=store.blobs.add(blob), size=len(blob)))
        plain = store.blobs.begin()
        plain.write(data)
        diff_ids.append(plain.digest)
        plain.drop()
    config = encode(
        Config(
            architecture=architecture or machine.architecture(),
            os="linux",
            config=RunConfig(**run),
            rootfs=RootFs(diff_ids=diff_ids),
        )
    )
    described = Descriptor(media_type=CONFIG_TYPE, digest=store.blobs.add(config), size=len(config))
    return store.put_manifest(encode(Manifest(config=described, layers=layers)), names)
