"""Layers, whoever made them, unpack to files in their folder and to nothing else."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.layers import TAR_TYPE, ZSTD_TYPE, archive, compressed, entry, unpacked

from hearth.images.documents import LAYER_TYPE
from hearth.images.errors import ImageTooLarge, InvalidImage, StoreFailed
from hearth.images.unpack import Limits, unpack

FOLDER: dict[str, Any] = {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


@pytest.mark.parametrize("media_type", [TAR_TYPE, LAYER_TYPE, ZSTD_TYPE])
def test_a_layer_is_unpacked_from_each_compression(tmp_path: Path, media_type: str) -> None:
    data = archive(
        entry("etc", **FOLDER),
        entry("etc/passwd", b"root", mode=0o600),
        entry("bin/run", b"#!", mode=0o4755),
        link("run", "bin/run"),
        hard("bin/same", "bin/run"),
    )
    assert unpacked(compressed(data, media_type), tmp_path / "l", media_type) == unpacked(data, tmp_path / "plain")
    assert (tmp_path / "l" / "etc" / "passwd").read_bytes() == b"root"
    assert os.readlink(tmp_path / "l" / "run") == "bin/run"
    assert (tmp_path / "l" / "bin" / "same").stat().st_nlink == 2


def test_nothing_keeps_special_rights(tmp_path: Path) -> None:
    header = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.mark": "x"}
    data = archive(
        entry("root", b"x", mode=0o6755, uid=0, gid=0),
        entry("sticky", type=tarfile.DIRTYPE, mode=0o7777),
        entry("capable", b"x", mode=0o755, pax_headers=header),
        entry("secret", b"x", mode=0o000, uid=77),
    )
    old = os.umask(0o077)
    try:
        unpacked(data, tmp_path / "l")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "l").iterdir()}
    assert modes == {"root": 0o755, "sticky": 0o755, "capable": 0o755, "secret": 0o644}
    assert os.listxattr(tmp_path / "l" / "capable") == []
    assert {path.stat().st_uid for path in (tmp_path / "l").iterdir()} == {os.geteuid()}


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    kinds = {"disk": tarfile.BLKTYPE, "null": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}
    unpacked(archive(*(entry(f"dev/{name}", type=kind) for name, kind in kinds.items())), tmp_path / "l")
    assert list((tmp_path / "l" / "dev").iterdir()) == []


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("../out", b"x")], "'../out' leaves the layer"),
        ([entry("a/../../out", b"x")], "leaves the layer"),
        ([entry("/out", b"x")], "is an absolute path"),
        ([link("up", ".."), entry("up/out", b"x")], "'up/out' goes through a link or a file"),
        ([link("up", "../"), link("more", "up"), entry("more/out", b"x")], "goes through a link or a file"),
        ([entry("a", b"x"), entry("a/out", b"x")], "goes through a link or a file"),
        ([link("out", "../out"), hard("in", "out")], "which is no file of the layer"),
        ([hard("in", "../out")], "leaves the layer"),
        ([hard("in", "/etc/passwd")], "is an absolute path"),
        ([link("up", ".."), hard("in", "up/out")], "goes through a link or a file"),
        ([hard("in", "missing")], "which is no file of the layer"),
        ([hard("in", ".")], "which is no file"),
        ([entry("d", **FOLDER), hard("in", "d")], "which is no file of the layer"),
        ([entry("d/f", b"x"), entry("d", b"x")], "Is a directory"),
        ([entry(".wh.", b"")], "hides no name"),
        ([entry(".wh..", b"")], "hides no name"),
        ([entry(".wh...", b"")], "hides no name"),
        ([entry("d", **FOLDER), entry("d/.wh...", b"")], "hides no name"),
        ([entry("x" * 300, b"")], "File name too long"),
        ([entry("/".join(["d"] * 600) + "/" + "../" * 700, b"")], "leaves the layer"),
    ],
)
def test_a_hostile_layer_is_refused_and_changes_nothing_outside(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(InvalidImage, match=reason):
        unpacked(archive(*entries), tmp_path / "l")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l", "out"]
    assert (tmp_path / "out").read_text() == "kept"


def test_a_file_takes_the_place_of_a_link_instead_of_following_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    unpacked(archive(link("f", "../out"), entry("f", b"mine")), tmp_path / "l")
    assert (tmp_path / "out").read_text() == "kept"
    assert not (tmp_path / "l" / "f").is_symlink()
    unpacked(archive(link("d", ".."), entry("d", **FOLDER), entry("d/f", b"mine")), tmp_path / "m")
    assert (tmp_path / "m" / "d" / "f").read_bytes() == b"mine"


@pytest.mark.parametrize("media_type", [LAYER_TYPE, ZSTD_TYPE])
def test_a_bomb_ends_at_the_limit(tmp_path: Path, media_type: str) -> None:
    blob = compressed(archive(entry("zeros", bytes(50 << 20))), media_type)
    assert len(blob) < 1 << 20
    with pytest.raises(ImageTooLarge, match=r"layer: .* 10000000"):
        unpacked(blob, tmp_path / "l", media_type, bytes=10_000_000)


def test_the_zeros_of_a_sparse_file_count(tmp_path: Path) -> None:
    header = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 50)}
    header |= {"GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1", "GNU.sparse.name": "hole"}
    with pytest.raises(ImageTooLarge):
        unpacked(archive(entry("hole", b"x", pax_headers=header)), tmp_path / "l", bytes=1 << 30)


def test_too_many_files_end_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ImageTooLarge, match="more than 10 files"):
        unpacked(archive(*(entry(f"f{number}") for number in range(11))), tmp_path / "l", entries=10)


def test_folders_that_only_paths_name_count(tmp_path: Path) -> None:
    deep = [entry(f"{number}/" + "d/" * 20 + "f", b"") for number in range(10)]
    with pytest.raises(ImageTooLarge, match="more than 100 files"):
        unpacked(archive(*deep), tmp_path / "l", entries=100)


def test_folders_upon_each_other_are_bounded(tmp_path: Path) -> None:
    unpacked(archive(entry("d/" * 255 + "f", b"x")), tmp_path / "l")
    with pytest.raises(InvalidImage, match="deeper than 256 folders"):
        unpacked(archive(entry("d/" * 1500 + "f", b"x")), tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


def test_a_description_without_end_is_refused(tmp_path: Path) -> None:
    data = archive(entry("f", b"x", pax_headers={"comment": "x" * (3 << 20)}))
    with pytest.raises(InvalidImage, match="the description of a file takes more than"):
        unpacked(data, tmp_path / "l")


def test_what_follows_the_archive_counts_and_is_part_of_the_digest(tmp_path: Path) -> None:
    data = archive(entry("f", b"x"))
    assert unpacked(data + bytes(10240), tmp_path / "l") != unpacked(data, tmp_path / "m")
    with pytest.raises(ImageTooLarge):
        unpacked(data + bytes(1 << 20), tmp_path / "n", bytes=100_000)


@pytest.mark.parametrize("media_type", [TAR_TYPE, LAYER_TYPE, ZSTD_TYPE])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_layer_is_refused_or_has_another_digest(tmp_path: Path, media_type: str, part: float) -> None:
    data = archive(*(entry(f"f{number}", os.urandom(5000)) for number in range(5)))
    blob = compressed(data, media_type)
    try:
        found = unpacked(blob[: int(len(blob) * part)], tmp_path / "l", media_type)
    except InvalidImage:
        return
    assert found != unpacked(data, tmp_path / "m")


@pytest.mark.parametrize("media_type", [TAR_TYPE, LAYER_TYPE, ZSTD_TYPE])
@given(data=st.binary(max_size=2000))
@settings(max_examples=40, deadline=None)
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, media_type: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    for blob in (data, compressed(data, media_type), compressed(archive(entry("f", data))[: len(data)], media_type)):
        try:
            unpacked(blob, folder / "l", media_type)
        except InvalidImage:
            pass


NAMES = st.sampled_from(
    ["a", "b", "..", ".", "", "\udcff", ".wh.a", ".wh..wh..opq", ".wh..", ".wh...", "a/b", "b/a", "/a", "a/../b"]
)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)


@given(
    wanted=st.lists(
        st.tuples(st.lists(NAMES, min_size=1, max_size=4).map("/".join), KINDS, NAMES | st.just("../../out")),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_entries_changes_anything_outside(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, bytes, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "out").write_text("kept")
    before = os.stat(folder / "out")
    entries = [
        entry(name, b"x" if kind == tarfile.REGTYPE else b"", type=kind, linkname=target)
        for name, kind, target in wanted
        if name
    ]
    try:
        unpacked(archive(*entries), folder / "l")
    except InvalidImage:
        pass
    after = os.stat(folder / "out")
    assert (after.st_mtime_ns, after.st_nlink, after.st_size) == (before.st_mtime_ns, 1, before.st_size)
    assert sorted(os.listdir(folder)) == ["l", "out"]


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    unpacked(archive(entry("d/\udcff\udcfe", b"odd")), tmp_path / "l")
    assert os.listdir(os.fsencode(tmp_path / "l" / "d")) == [b"\xff\xfe"]


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match="unknown media type 'application/x-lzma' of a layer"):
        unpacked(b"", tmp_path / "l", "application/x-lzma")


def test_a_window_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    blob = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = blob.compress(archive(entry("f", os.urandom(1000)))) + blob.flush()
    with pytest.raises(InvalidImage, match="damaged layer"):
        unpacked(data, tmp_path / "l", ZSTD_TYPE)


def test_a_full_disk_is_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    (tmp_path / "l").mkdir()
    monkeypatch.setattr("hearth.images.unpack.os.symlink", full)
    with pytest.raises(StoreFailed, match="layer: No space left on device while it was unpacked to"):
        unpack(io.BytesIO(archive(link("a", "b"))), TAR_TYPE, tmp_path / "l", Limits(), "layer")
