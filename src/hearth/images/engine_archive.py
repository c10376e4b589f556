"""Read what ``docker save`` writes into a store: a tar archive with a configuration and layers of each image."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO, Final

import msgspec

from hearth.images.documents import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Manifest,
    encode,
    read_config,
)
from hearth.images.errors import ImageTooLarge, InvalidImage, StoreFailed
from hearth.images.layout import ImageStore

_LIST: Final = "manifest.json"
_CHUNK: Final = 1 << 20
_PLAIN: Final = LAYER_TYPE.removesuffix("+gzip")
#: How compressed layers begin.
_COMPRESSED: Final = {b"\x1f\x8b": LAYER_TYPE, b"\x28\xb5": f"{_PLAIN}+zstd"}


class _Saved(msgspec.Struct, rename="pascal"):
    """One image of an archive: the names of its files there."""

    config: str
    layers: list[str]


def read_archive(store: ImageStore, archive: Path, name: str, most_bytes: int) -> str:
    """Store the image of an archive under a name; return its digest. Blocks.

    Raises:
        InvalidImage: The archive is malformed, or the image is too large.
        StoreFailed: The disk refused.
    """
    try:
        with tarfile.open(archive, mode="r:") as tar:
            saved = msgspec.json.decode(_document(tar, _LIST), type=list[_Saved])
            if len(saved) != 1:
                raise InvalidImage(f"{name}: the Engine sends {len(saved)} images")
            config = _document(tar, saved[0].config)
            layers = []
            for layer in saved[0].layers:
                layers.append(_store_layer(store, tar, layer, name, most_bytes))
                most_bytes -= layers[-1].size
    except (tarfile.TarError, KeyError, msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidImage(f"{name}: the Engine sends a malformed archive: {exc}") from exc
    except OSError as exc:
        raise StoreFailed(f"{archive}: {exc.strerror or exc}") from exc
    read_config(config, name)
    described = Descriptor(media_type=CONFIG_TYPE, digest=store.blobs.add(config), size=len(config))
    return store.put_manifest(encode(Manifest(config=described, layers=layers)), [name])


def _file(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a file of the archive; a link leads to another file of it only."""
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(f"{name} is no file")
    return found


def _document(tar: tarfile.TarFile, name: str) -> bytes:
    with _file(tar, name) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise KeyError(f"{name} is longer than {MAX_DOCUMENT_BYTES} bytes")
    return data


def _store_layer(store: ImageStore, tar: tarfile.TarFile, layer: str, name: str, most_bytes: int) -> Descriptor:
    upload = store.blobs.begin(most_bytes)
    try:
        with _file(tar, layer) as file:
            first = data = file.read(_CHUNK)
            while data:
                upload.write(data)
                data = file.read(_CHUNK)
        media_type = _COMPRESSED.get(first[:2], _PLAIN)
        return Descriptor(media_type=media_type, digest=upload.commit(), size=upload.size)
    except ImageTooLarge as exc:
        raise ImageTooLarge(f"{name}: its layers are larger than the limit of FN_IMAGE_MAX_BYTES") from exc
    finally:
        upload.drop_unless_done()
