"""Where the files of tests are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import memory_folders


def test_temporary_folders_are_in_memory_only_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_folders, "MEMORY", tmp_path)
    monkeypatch.setattr(memory_folders, "NEEDED", 1)
    assert memory_folders.root() == str(tmp_path)
    monkeypatch.setattr(memory_folders, "NEEDED", 1 << 60)
    assert memory_folders.root() is None
    monkeypatch.setattr(memory_folders, "MEMORY", tmp_path / "none")
    assert memory_folders.root() is None
