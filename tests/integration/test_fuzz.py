"""A short, repeatable fuzz run of every reader; ``make fuzz`` goes on for longer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
_RUNS = 2000

pytestmark = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this one")


def fuzz(root: Path, reader: str) -> subprocess.CompletedProcess[str]:
    """So many inputs, the same ones each time."""
    command = [sys.executable, "-m", "fuzz", "--only", reader, "--runs", str(_RUNS), "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("reader", TARGETS)
def test_no_input_breaks_a_reader(reader: str) -> None:
    done = fuzz(ROOT, reader)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "1 of 1 readers held" in done.stdout
    (executed,) = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(executed) >= _RUNS, "it ended before"


def test_a_flaw_is_found_and_its_input_told(tmp_path: Path) -> None:
    for name in ("src", "fuzz"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    reader = tmp_path / "src" / "hearth" / "sql" / "address.py"
    sound = reader.read_text()
    assert sound.count("def parse(") == 1
    flaw = "\n\ndef parse(text: str) -> Address:\n    assert '!' not in text\n    return sound(text)\n"
    reader.write_text(sound.replace("def parse(", "def sound(") + flaw)
    done = fuzz(tmp_path, "address")
    assert done.returncode == 1
    told = [line for line in done.stdout.splitlines() if line.startswith("fuzz: address broke on b")]
    assert told
    assert "!" in told[0]
    assert "broken: address" in done.stdout
