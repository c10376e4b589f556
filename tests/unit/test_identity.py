"""A node knows its containers by an id of its data folder, wherever that folder is mounted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from hearth.models.errors import StartUpError
from hearth.nodes.identity import FILE, held_id, node_id


def test_a_restarted_node_is_the_same_one(tmp_path: Path) -> None:
    made = node_id(tmp_path / "not" / "there yet")
    assert re.fullmatch("[0-9a-f]{12}", made), "a label of the Engine, and the name of a folder"
    assert node_id(tmp_path / "not" / "there yet") == made
    assert [path.name for path in (tmp_path / "not" / "there yet").iterdir()] == [FILE]


def test_two_folders_that_come_to_lie_at_one_path_are_two_nodes(tmp_path: Path) -> None:
    """As in two containers: each sees a folder of its own at the same path."""
    place = tmp_path / "data"
    ids = []
    for volume in ("first", "second", "first"):
        (tmp_path / volume).mkdir(exist_ok=True)
        (tmp_path / volume).rename(place)
        ids.append(node_id(place))
        place.rename(tmp_path / volume)
    assert ids[0] == ids[2] != ids[1]


def test_starts_at_once_agree(tmp_path: Path) -> None:
    found: list[str] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        found.append(node_id(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("content", [b"", b"../up", b"0123456789abcdef", b"\xff\xfe"])
def test_what_is_no_id_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StartUpError, match="node-id: holds no id of a node; remove it"):
        node_id(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartUpError, match=r"FN_DATA_DIR=.*/file/data: Not a directory; choose a folder"):
        node_id(tmp_path / "file" / "data")


def test_a_copy_of_a_data_folder_is_refused_while_the_first_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    node_id(first)
    shutil.copytree(first, copy)
    with held_id(first) as held:
        monkeypatch.setattr(tempfile, "tempdir", str(copy))  # as in a unit or container with a /tmp of its own
        with pytest.raises(StartUpError, match=rf"{copy}/node-id: another node .* runs with this id"), held_id(copy):
            pass
        (copy / FILE).unlink()
        with held_id(copy) as own:
            assert own != held
    with held_id(first) as again:
        assert again == held


def test_a_data_folder_has_one_node_at_a_time_wherever_it_is_mounted(tmp_path: Path) -> None:
    """Also for a node in another container: it shares the file, but neither network nor /tmp."""
    other = [
        sys.executable,
        "-c",
        "import sys, pathlib; from hearth.nodes import identity as i\n" + _HOLD,
        str(tmp_path),
    ]
    apart = ["unshare", "--net"] if os.geteuid() == 0 else []
    with held_id(tmp_path) as held:
        refused = subprocess.run([*apart, *other], capture_output=True, text=True, timeout=60)
        assert "another node uses this data folder; stop it" in refused.stderr
    taken = subprocess.run([*apart, *other], capture_output=True, text=True, timeout=60)
    assert taken.stdout.strip() == held, taken.stderr


_HOLD = """
with i.held_id(pathlib.Path(sys.argv[1])) as held:
    print(held)
"""
