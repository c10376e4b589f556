"""What ``docker save`` writes becomes an image of the store, or nothing."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.support.layers import archive, entry

from hearth.drivers.local import stored
from hearth.host import machine
from hearth.images.documents import digest_of_bytes
from hearth.images.engine_archive import read_archive
from hearth.images.errors import ImageTooLarge, InvalidImage
from hearth.images.layout import ImageStore

LAYERS = [archive(entry("a", b"lower")), archive(entry("b", b"upper"))]
CONFIG = {
    "architecture": machine.architecture(),
    "os": "linux",
    "config": {"Entrypoint": ["/a"], "Cmd": None, "Env": None},
    "rootfs": {"type": "layers", "diff_ids": [digest_of_bytes(layer) for layer in LAYERS]},
}
SAVED = {"Config": "c.json", "RepoTags": ["f:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "images")
    made.make()
    return made


def saved(folder: Path, *more: Any, config: Any = CONFIG, listed: Any = (SAVED,)) -> Path:
    path = folder / "saved.tar"
    entries = [
        entry("c.json", json.dumps(config).encode()),
        entry("manifest.json", json.dumps(listed).encode()),
        entry("1/layer.tar", LAYERS[0]),
        *(more or [entry("2/layer.tar", LAYERS[1])]),
    ]
    path.write_bytes(archive(*entries))
    return path


def test_an_image_of_the_engine_is_stored_and_unpacked(store: ImageStore, tmp_path: Path) -> None:
    compressed = zstandard.compress(LAYERS[1])
    linked = (entry("3/layer.tar", compressed), entry("2/layer.tar", type=tarfile.SYMTYPE, linkname="../3/layer.tar"))
    digest = read_archive(store, saved(tmp_path, *linked), "f:1", 1 << 20)
    found = stored.find(tmp_path / "bundles", "f:1")
    assert found is not None
    assert (found.manifest.content, found.manifest.cmd) == (digest, ["/a"])
    assert [(found.root / name).read_text() for name in "ab"] == ["lower", "upper"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"listed": []}, "f:1: the Engine sends 0 images"),
        ({"listed": {"a": 1}}, "f:1: the Engine sends a malformed archive"),
        ({"listed": [{**SAVED, "Config": "none"}]}, "malformed archive"),
        ({"listed": [{**SAVED, "Layers": ["/etc/passwd"]}]}, "malformed archive"),
        ({"config": {"os": "linux"}}, "f:1: Object missing required field"),
    ],
)
def test_a_malformed_archive_gets_no_name(store: ImageStore, tmp_path: Path, change: Any, reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        read_archive(store, saved(tmp_path, **change), "f:1", 1 << 20)
    assert store.resolve("f:1") is None
    assert list(store.blobs.uploads.iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "2/layer.tar", "layer.tar"])
def test_a_link_leads_to_no_file_outside_of_the_archive(store: ImageStore, tmp_path: Path, target: str) -> None:
    linked = entry("2/layer.tar", type=tarfile.SYMTYPE, linkname=target)
    with pytest.raises(InvalidImage, match="malformed archive"):
        read_archive(store, saved(tmp_path, linked), "f:1", 1 << 20)
    assert store.resolve("f:1") is None


def test_layers_above_the_limit_are_not_stored(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageTooLarge, match="f:1: its layers are larger"):
        read_archive(store, saved(tmp_path), "f:1", len(LAYERS[0]) + 1)
    assert list(store.blobs.uploads.iterdir()) == []
    assert read_archive(store, saved(tmp_path), "f:1", 1 << 20)
