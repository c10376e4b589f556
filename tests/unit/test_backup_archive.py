"""The file of a backup: whole or refused, and nothing is written beside the folder that it is unpacked into."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from hearth.nodes.archive import ABOUT, About, ArchiveDamaged, new_archive, unpack

OURS = About(version="1", created_at="2026-01-01T00:00:00+00:00", has_keys=True)
CONTENT = {"a": b"first" * 200, "b/c": b"", "b/d": bytes(range(256)) * 5}


def is_expected(name: str) -> bool:
    return name in CONTENT


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "backup.tar"
    with new_archive(path, OURS) as made:
        for name, data in CONTENT.items():
            made.add_bytes(name, data)
    return path


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    """What is in the folder after the archive was unpacked there."""
    folder.mkdir()
    unpack(path, folder, is_expected)
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_what_was_added_is_unpacked_for_this_user_alone(archive: Path, tmp_path: Path) -> None:
    assert unpacked(archive, tmp_path / "out") == CONTENT
    files = [archive, *(one for one in (tmp_path / "out").rglob("*") if one.is_file())]
    assert {one.stat().st_mode & 0o777 for one in files} == {0o600}
    assert (tmp_path / "out" / "b").stat().st_mode & 0o777 == 0o700


def test_an_archive_that_was_cut_anywhere_is_refused(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    for number, size in enumerate(range(0, data.rindex(b"}"), 97)):  # what follows the last member is padding
        archive.write_bytes(data[:size])
        with pytest.raises(ArchiveDamaged, match=r"no backup|damaged|complete"):
            unpacked(archive, tmp_path / str(number))


def test_an_archive_with_a_changed_byte_is_refused_or_means_the_same(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    refused = 0
    for at in range(0, len(data), 37):
        data[at] ^= 0x41
        archive.write_bytes(data)
        try:
            assert unpacked(archive, tmp_path / str(at)) == CONTENT, at
        except ArchiveDamaged:
            refused += 1
        data[at] ^= 0x41
    assert refused > 60


def hostile(kind: bytes, name: str, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile(tarfile.REGTYPE, "../outside"),
        hostile(tarfile.REGTYPE, "/tmp/outside"),
        hostile(tarfile.REGTYPE, "other"),
        hostile(tarfile.SYMTYPE, "a", "../outside"),
        hostile(tarfile.LNKTYPE, "a", "../outside"),
        hostile(tarfile.CHRTYPE, "a"),
        hostile(tarfile.DIRTYPE, "a"),
        hostile(tarfile.REGTYPE, ABOUT),
    ],
    ids=lambda member: f"{member.type!r} {member.name}",
)
def test_members_that_do_not_belong_there_are_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    path, folder = tmp_path / "hostile.tar", tmp_path / "out"
    about = json.dumps({"version": "1", "created_at": "", "has_keys": False, "format": 1}).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in ((ABOUT, about), ("b/c", b"")):
            found = tarfile.TarInfo(name)
            found.size = len(data)
            tar.addfile(found, io.BytesIO(data))
        tar.addfile(member)
    folder.mkdir()
    with pytest.raises(ArchiveDamaged, match="does not belong in a backup"):
        unpack(path, folder, lambda name: is_expected(name) or name == ABOUT)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["hostile.tar", "out"]
    assert [str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir()] == ["b/c"]


def test_an_archive_of_a_later_format_says_so(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    later = data.replace(b'"format":1', b'"format":2')
    assert later != data
    archive.write_bytes(later)
    with pytest.raises(ArchiveDamaged, match="format 2; this release reads format 1"):
        unpacked(archive, tmp_path / "out")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for number, data in enumerate((b"", b"hello\n", b"\0" * 10240, hashlib.sha256().digest() * 100)):
        path.write_bytes(data)
        with pytest.raises(ArchiveDamaged):
            unpacked(path, tmp_path / str(number))


def test_a_backup_that_fails_leaves_no_file_and_none_is_overwritten(archive: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("disk full")

    before = archive.read_bytes()
    with pytest.raises(FileExistsError), new_archive(archive, OURS):
        pass
    assert archive.read_bytes() == before
    with pytest.raises(OSError, match="disk full"), new_archive(tmp_path / "new.tar", OURS):
        fail()
    assert not (tmp_path / "new.tar").exists()
