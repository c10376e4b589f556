"""The ``/etc`` of sandboxed functions."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

from hearth.drivers.local import system_files


def test_nodes_that_share_a_folder_may_write_it_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(system_files.write, folder) for _ in range(64)]:
            done.result()
    assert [path.name for path in folder.rglob("*") if path.name.startswith(".")] == []
    assert (folder / "passwd").read_text().splitlines()[1].startswith("function:x:1000:")
    assert (folder / "passwd").stat().st_mode & 0o777 == 0o644
