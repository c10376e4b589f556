"""What a node keeps is for its own user only; what functions need is within reach of theirs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.support.node import build_multi, running_node
from tests.support.umask import umask

from hearth.cli.data_lock import data_lock
from hearth.host import private_files
from hearth.models.errors import StartUpError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_node_keeps_its_files_to_itself_and_serves_from_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(0o700)
    data = closed / "data"
    data.mkdir()
    image = build_multi(data, tmp_path / "source")
    (data / "fn.db").touch(0o644)
    (data / "earlier").write_text("of an earlier release")
    for path in (data / "fn.db", data / "earlier"):
        path.chmod(0o644)
    data.chmod(0o755)
    with running_node("process", data, image) as node:
        answer = node.call(node.route("modes", "json"))
        assert answer.status_code == 200, answer.text
        assert node.http.post(node.route("later", "json", type="async")).status_code == 202
        assert mode(data) == 0o700
        kept = [path for path in data.rglob("*") if not path.is_symlink() and data / "bundles" not in path.parents]
        open_to_others = {path.name: oct(mode(path)) for path in kept if mode(path) & 0o077}
        assert {"fn.db", "fn.db-wal", "fn.mq", "node-id", "hearth.lock"} <= {path.name for path in kept}
        assert open_to_others == {"bundles": "0o711"}


def test_a_bundle_is_readable_whatever_its_builder_masks(tmp_path: Path) -> None:
    with umask(0o077):
        image = build_multi(tmp_path / "data", tmp_path / "source")
    with running_node("process", tmp_path / "data", image) as node:
        assert node.call(node.route("masked", "json")).status_code == 200


def test_a_folder_that_others_use_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "theirs").touch(0o644)
    (tmp_path / "theirs").chmod(0o644)
    private_files.close_to_others(tmp_path)
    assert (mode(tmp_path), mode(tmp_path / "theirs")) == (0o1777, 0o644)
    private_files.make_file(tmp_path / "theirs")
    assert mode(tmp_path / "theirs") == 0o600


def test_a_data_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could lead what a node writes there to any file of the node's user."""
    if os.geteuid() != 0:
        pytest.skip("a folder of another user needs root")
    os.chown(tmp_path, 54321, 54321)
    with pytest.raises(StartUpError, match=r"belongs to user 54321, not to user 0 .*, or choose another folder"):
        with data_lock(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    os.chown(tmp_path, 0, 0)
    with data_lock(tmp_path):
        assert mode(tmp_path) == 0o700


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "hearth.lock").symlink_to(other)
    with pytest.raises(StartUpError, match="FN_DATA_DIR"):
        with data_lock(tmp_path):
            pass
    assert other.read_text() == "kept"
