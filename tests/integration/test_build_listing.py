"""What a build leaves out is listed on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cli import Cli


@pytest.mark.parametrize("flags", [["-v"], []])
def test_files_that_are_left_out_are_listed_with_verbose(tmp_path: Path, flags: list[str]) -> None:
    folder = tmp_path / "f"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    (folder / ".hearthignore").write_text("*.log\n")
    (folder / "old.log").write_text("")
    (folder / ".env").write_text("A=b\n")
    (folder / "func.yaml").write_text("version: 0.0.1\nruntime: exec\ncmd: [echo, hi]\n")
    done = Cli("http://localhost:1", tmp_path / "home", FN_DATA_DIR=str(tmp_path / "data"), FN_DRIVER="process").run(
        "build", *flags, folder
    )
    assert done.returncode == 0, done.stderr
    listed = {line.removeprefix("left out: ") for line in done.stderr.splitlines() if line.startswith("left out: ")}
    assert listed == ({"__pycache__/", "old.log"} if flags else set())
