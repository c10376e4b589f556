"""The image store: blobs are whole or absent, names change at once, and only what nothing needs is collected."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.layers import archive, entry, put_image

from hearth.host import machine
from hearth.images.collect import collect, note_use
from hearth.images.documents import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Config,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RootFs,
    encode,
)
from hearth.images.errors import (
    BlobNotFound,
    ImageStoreError,
    ImageTooLarge,
    InvalidImage,
    StoreFailed,
    WrongDigest,
)
from hearth.images.layout import ImageStore
from hearth.images.pack import write_layer
from hearth.images.trees import Layers, make_tree
from hearth.images.unpack import Limits


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "images")
    made.make()
    return made


def uploads(store: ImageStore) -> list[str]:
    return [path.name for path in store.blobs.uploads.iterdir()]


def shown(store: ImageStore, digest: str, folder: Path) -> dict[str, bytes]:
    """The files of an image's tree."""
    tree = folder / f"tree-{len(list(folder.iterdir()))}"
    tree.mkdir()
    make_tree(Layers(store, folder / "layers").unpack(store.image(digest)), tree)
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


# -- blobs ------------------------------------------------------------------------------------------------------------


def test_a_blob_is_found_by_its_digest(store: ImageStore) -> None:
    digest = store.blobs.add(b"hello")
    assert digest == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    with store.blobs.open(digest) as file:
        assert file.read() == b"hello"
    assert store.blobs.renew(digest) == 5
    assert uploads(store) == []


def test_other_bytes_than_the_digest_says_are_dropped(store: ImageStore) -> None:
    upload = store.blobs.begin()
    upload.write(b"hello")
    with pytest.raises(WrongDigest, match=r"sha256:0000.*: the content has the digest sha256:2cf24d"):
        upload.commit("sha256:" + "0" * 64)
    assert uploads(store) == []
    assert list(store.blobs.all()) == []


def test_an_upload_is_continued_by_another_owner(store: ImageStore) -> None:
    upload = store.blobs.begin()
    upload.write(b"hel")
    upload.suspend()
    again = store.blobs.resume(upload.name)
    assert again is not None
    assert again.size == 3
    again.write(b"lo")
    assert again.commit() == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    assert store.blobs.resume(upload.name) is None


@pytest.mark.parametrize("name", ["", "../index.json", "/etc/passwd", "a" * 9, "ABCDEFGH"])
def test_no_other_file_is_taken_for_an_upload(store: ImageStore, name: str) -> None:
    assert store.blobs.resume(name) is None


def test_an_upload_ends_at_its_limit(store: ImageStore) -> None:
    upload = store.blobs.begin(most_bytes=10)
    upload.write(b"0123456789")
    with pytest.raises(ImageTooLarge, match="more than 10 bytes"):
        upload.write(b"x")
    upload.drop()
    assert uploads(store) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_no_other_digest_names_a_file(store: ImageStore, digest: str) -> None:
    with pytest.raises(BlobNotFound):
        store.blobs.open(digest)


def test_a_killed_writer_leaves_no_blob(store: ImageStore) -> None:
    program = (
        "import sys; from pathlib import Path; from hearth.images.blobs import Blobs\n"
        "upload = Blobs(Path(sys.argv[1])).begin(); upload.write(b'x' * 9_000_000); print('written', flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert list(store.blobs.all()) == []
    assert list(store.verify()) == []
    assert len(uploads(store)) == 1
    collect(store, (), before=math.inf)
    assert uploads(store) == []


def test_a_full_disk_leaves_nothing_half_stored(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hearth.images.blobs.os.fsync", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        store.blobs.add(b"hello")
    assert list(store.blobs.all()) == []
    assert uploads(store) == []


# -- manifests --------------------------------------------------------------------------------------------------------


def test_a_name_leads_to_its_last_manifest(store: ImageStore) -> None:
    first = put_image(store, [archive(entry("a", b"1"))], ["team/f:1", "team/f:latest"])
    second = put_image(store, [archive(entry("a", b"2"))], ["team/f:latest"])
    assert (store.resolve("team/f:1"), store.resolve("team/f:latest")) == (first, second)
    assert store.resolve("team/f:2") is None
    store.forget(["team/f:1"])
    assert store.resolve("team/f:1") is None


def test_a_manifest_without_its_blobs_is_refused(store: ImageStore) -> None:
    missing = Descriptor(media_type=LAYER_TYPE, digest="sha256:" + "1" * 64, size=3)
    config = Descriptor(media_type=CONFIG_TYPE, digest=store.blobs.add(b"{}"), size=2)
    with pytest.raises(BlobNotFound, match="sha256:1111"):
        store.put_manifest(encode(Manifest(config=config, layers=[missing])), ["f:1"])
    wrong = Descriptor(media_type=LAYER_TYPE, digest=store.blobs.add(b"abcd"), size=3)
    with pytest.raises(InvalidImage, match="has 4 bytes, not 3"):
        store.put_manifest(encode(Manifest(config=config, layers=[wrong])), ["f:1"])
    assert store.entries() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"schemaVersion": 1}', "schemaVersion is 1, not 2"),
        (b'{"schemaVersion": 2, "mediaType": "text/html"}', "unknown media type 'text/html'"),
        (b'{"schemaVersion": 2}', "missing required field `config`"),
        (b'{"schemaVersion": 2, "manifests": [{"mediaType": "", "digest": "x", "size": 1}]}', "'x' is no sha256"),
        (b"[" * 100_000, "RecursionError|recursion|Expected"),
        (b" " * (5 << 20), "the limit is 4194304"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_cause(store: ImageStore, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        store.put_manifest(data, ["f:1"])
    assert store.entries() == []


@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_manifest_or_an_error_of_the_store(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    store = ImageStore(tmp_path_factory.mktemp("any") / "images")
    store.make()
    with pytest.raises(ImageStoreError):
        store.put_manifest(b'{"schemaVersion": 2, "layers": ' + data, ["f:1"])


def test_of_several_platforms_the_one_of_this_machine_is_chosen(store: ImageStore) -> None:
    mine, other = (put_image(store, [archive(entry("a", text))]) for text in (b"mine", b"other"))
    size = store.blobs.renew(mine)
    assert size is not None

    def listed(digest: str, platform: str) -> Descriptor:
        found = Platform(os="linux", architecture=platform)
        return Descriptor(media_type=MANIFEST_TYPE, digest=digest, size=size, platform=found)

    both = Index(manifests=[listed(other, "s390x"), listed(mine, machine.architecture())])
    assert store.image(store.put_manifest(encode(both), ["f:1"])).digest == mine
    alone = store.put_manifest(encode(Index(manifests=[listed(other, "s390x")])), ["f:2"])
    with pytest.raises(InvalidImage, match=f"no image for linux/{machine.architecture()}, only for linux/s390x"):
        store.image(alone)


def test_layers_that_the_configuration_does_not_name_are_refused(store: ImageStore, tmp_path: Path) -> None:
    layer = archive(entry("a", b"1"))
    blob = Descriptor(
        media_type="application/vnd.oci.image.layer.v1.tar", digest=store.blobs.add(layer), size=len(layer)
    )

    def image(diff_ids: list[str]) -> str:
        config = encode(Config(architecture="amd64", os="linux", rootfs=RootFs(diff_ids=diff_ids)))
        described = Descriptor(media_type=CONFIG_TYPE, digest=store.blobs.add(config), size=len(config))
        return store.put_manifest(encode(Manifest(config=described, layers=[blob])))

    with pytest.raises(InvalidImage, match="1 layers, but 0 digests"):
        store.image(image([]))
    with pytest.raises(WrongDigest):
        shown(store, image(["sha256:" + "0" * 64]), tmp_path)
    assert list((tmp_path / "layers").iterdir()) == []


def test_writers_at_once_lose_no_name(store: ImageStore) -> None:
    digest = put_image(store, [archive(entry("a", b"1"))])
    threads = [
        threading.Thread(target=lambda n=number: put_image(store, [archive(entry("a", b"1"))], [f"f:{n}"]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.resolve(f"f:{number}") for number in range(12)} == {digest}


# -- trees ------------------------------------------------------------------------------------------------------------


def test_upper_layers_hide_and_replace_what_is_below(store: ImageStore, tmp_path: Path) -> None:
    lower = archive(
        entry("a/one", b"1"), entry("a/two", b"2"), entry("b/three", b"3"), entry("c/four", b"4"), entry("d", b"5")
    )
    upper = archive(
        entry("a/.wh.one"), entry("b/.wh..wh..opq"), entry("b/six", b"6"), entry(".wh.c"), entry("d/seven", b"7")
    )
    digest = put_image(store, [lower, upper])
    assert shown(store, digest, tmp_path) == {"a/two": b"2", "b/six": b"6", "d/seven": b"7"}


def test_a_folder_takes_the_place_of_a_link_of_a_lower_layer(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    lower = archive(entry("d", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside")))
    digest = put_image(store, [lower, archive(entry("d/f", b"1"))])
    assert shown(store, digest, tmp_path) == {"d/f": b"1"}
    assert list((tmp_path / "outside").iterdir()) == []


def test_layers_are_unpacked_once_and_shared(store: ImageStore, tmp_path: Path) -> None:
    base = archive(entry("lib", b"x" * 1000))
    first = put_image(store, [base, archive(entry("own", b"1"))])
    second = put_image(store, [base, archive(entry("own", b"2"))])
    folder = tmp_path / "layers"
    for digest in (first, second):
        tree = tmp_path / digest[-8:]
        tree.mkdir()
        make_tree(Layers(store, folder).unpack(store.image(digest)), tree)
    assert len(list(folder.iterdir())) == 3
    assert (tmp_path / first[-8:] / "lib").stat().st_nlink == 3


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_a_whiteout_in_a_layer_that_is_unpacked_already_removes_nothing_outside(tmp_path: Path, name: str) -> None:
    layer, neighbour, tree = tmp_path / "layer", tmp_path / "trees" / "other", tmp_path / "trees" / "tree"
    for folder in (layer, neighbour, tree):
        folder.mkdir(parents=True)
    (layer / name).touch()
    with pytest.raises(InvalidImage, match="hides no name"):
        make_tree([layer], tree)
    assert neighbour.exists()
    assert tree.exists()


def test_an_image_that_is_too_large_is_not_unpacked(store: ImageStore, tmp_path: Path) -> None:
    digest = put_image(store, [archive(entry("a", os.urandom(5000)))])
    with pytest.raises(InvalidImage, match="the limit is 1000"):
        Layers(store, tmp_path / "layers", Limits(bytes=1000)).unpack(store.image(digest))
    with pytest.raises(ImageTooLarge):
        Layers(store, tmp_path / "layers", Limits(bytes=8000)).unpack(store.image(digest))
    assert list((tmp_path / "layers").iterdir()) == []


def test_equal_folders_become_equal_layers(store: ImageStore, tmp_path: Path) -> None:
    layers = []
    for number in (1, 2):
        root = tmp_path / str(number)
        for name in ("b", "a", "\udcff")[:: 1 if number == 1 else -1]:
            (root / "function" / name).mkdir(parents=True)
            (root / "function" / name / "f").write_text(name.encode(errors="surrogateescape").hex())
        os.utime(root / "function" / "a" / "f", (number, number))
        (root / "function" / "a" / "f").chmod(0o600 if number == 1 else 0o664)
        layers.append(write_layer(store, root, ["function"]))
    assert layers[0] == layers[1]
    (tmp_path / "2" / "function" / "a" / "f").chmod(0o755)
    assert write_layer(store, tmp_path / "2", ["function"]) != layers[0]


# -- damage and collection --------------------------------------------------------------------------------------------


def test_damage_is_found(store: ImageStore) -> None:
    digest = put_image(store, [archive(entry("a", b"1"))], ["f:1"])
    assert list(store.verify()) == []
    image = store.image(digest)
    layer, config = image.manifest.layers[0].digest, image.manifest.config.digest
    store.blobs.path(layer).write_bytes(b"other")
    store.blobs.path(config).unlink()
    found = {fault.subject: fault.reason for fault in store.verify()}
    assert found[layer].startswith("damaged: its content has the digest sha256:")
    assert "f:1" in found
    assert any(config in fault.reason for fault in store.verify())


def test_a_damaged_index_is_named(store: ImageStore) -> None:
    put_image(store, [archive(entry("a", b"1"))], ["f:1"])
    (store.root / "index.json").write_text("{")
    with pytest.raises(InvalidImage, match=r"index\.json"):
        store.resolve("f:1")
    with pytest.raises(InvalidImage, match=r"index\.json"):
        collect(store, (), before=math.inf)
    assert len(list(store.blobs.all())) == 3


def age(store: ImageStore) -> None:
    """Let an hour pass for all blobs."""
    for _, path in store.blobs.all():
        os.utime(path, (time.time() - 3600,) * 2)


def test_a_layer_is_found_by_its_blob_not_by_what_a_configuration_claims(store: ImageStore, tmp_path: Path) -> None:
    secret = put_image(store, [archive(entry("secret", b"x"))], ["victim:1"])
    Layers(store, tmp_path / "layers").unpack(store.image(secret))
    own = store.image(put_image(store, [archive(entry("own", b"y"))], ["thief:1"]))
    claimed = msgspec.structs.replace(own, config=store.image(secret).config)
    with pytest.raises(WrongDigest):
        Layers(store, tmp_path / "layers").unpack(claimed)


def test_what_nothing_needs_is_collected_after_its_time(store: ImageStore, tmp_path: Path) -> None:
    base = archive(entry("lib", b"x" * 1000))
    needed = put_image(store, [base, archive(entry("own", b"1"))], ["f:1"])
    unneeded = put_image(store, [base, archive(entry("own", b"2"))], ["f:2"])
    for digest in (needed, unneeded):
        Layers(store, tmp_path / "layers").unpack(store.image(digest))
    hour_ago = time.time() - 1800
    assert collect(store, {needed}, before=hour_ago).blobs == []
    age(store)
    for folder in (tmp_path / "layers").iterdir():
        os.utime(folder, (0, 0))
    would = collect(store, {needed}, before=hour_ago, layers=tmp_path / "layers", dry_run=True)
    assert store.resolve("f:2") == unneeded
    done = collect(store, {needed}, before=hour_ago, layers=tmp_path / "layers")
    assert (would.names, would.blobs, len(would.layers)) == (["f:2"], done.blobs, 1)
    assert len(done.blobs) == 3  # a manifest, a configuration, a layer
    assert store.resolve("f:2") is None
    assert list(store.verify()) == []
    assert shown(store, needed, tmp_path) == {"lib": b"x" * 1000, "own": b"1"}
    assert len(list((tmp_path / "layers").iterdir())) == 2


def test_what_somebody_relies_on_again_stays(store: ImageStore) -> None:
    digest = put_image(store, [archive(entry("a", b"1"))], ["f:1"])
    age(store)
    layer = store.image(digest).manifest.layers[0].digest
    assert store.blobs.renew(layer) is not None  # a client is about to push another image with it
    assert layer not in collect(store, (), before=time.time() - 60).blobs
    again = put_image(store, [archive(entry("a", b"1"))], ["f:1"])
    age(store)
    note_use(store, [again])
    assert collect(store, (), before=time.time() - 60).blobs == []


def test_an_index_keeps_the_images_of_all_platforms(store: ImageStore) -> None:
    digest = put_image(store, [archive(entry("a", b"1"))])
    size = store.blobs.renew(digest)
    assert size is not None
    listed = Descriptor(media_type=MANIFEST_TYPE, digest=digest, size=size)
    index = store.put_manifest(encode(Index(manifests=[listed])), ["f:1"])
    age(store)
    assert collect(store, {index}, before=math.inf).blobs == []
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
