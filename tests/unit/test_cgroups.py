"""Control groups, on folders that look like them."""

from __future__ import annotations

from pathlib import Path

from hearth.host.cgroups import Group


def test_a_process_of_another_namespace_is_none_to_kill(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n17\n0\n")
    assert Group([tmp_path], 2).pids() == [17]
