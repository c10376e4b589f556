"""A parallel run of the tests ends and runs each test, although a worker crashes or a test hangs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = ["-v", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "xdist", "-p", "tests.support.scheduling"]
#: A file with one test that notes which worker has collected it.
WHO = """
import os, pathlib
with (pathlib.Path(os.environ["SEEN"]) / os.environ.get("PYTEST_XDIST_WORKER", "none")).open("a") as seen:
    seen.write(pathlib.Path(__file__).parent.name + "\\n")
def test_passes(): pass
"""
LIMIT = ["-o", "faulthandler_timeout=1", "-o", "faulthandler_exit_on_timeout=true"]
#: One test in each: a worker that got such a file alone would wait for a second one.
SHORT = [f"test_{name}.py" for name in "bcdefgh"]


@pytest.mark.parametrize("end", ["os._exit(3)", "os.read(os.pipe()[0], 1)"], ids=["crash", "hang"])
@pytest.mark.parametrize(("workers", "first"), [(1, "test_a.py"), (2, "test_a.py"), (2, "test_b.py")])
def test_each_test_runs_once_and_the_one_that_ends_its_worker_fails(
    tmp_path: Path, end: str, workers: int, first: str
) -> None:
    tests = ["def test_first(): pass", f"def test_ends(): {end}", "def test_last(): pass"]
    (tmp_path / "test_a.py").write_text("\n".join(["import os", *tests]))
    for name in SHORT:
        (tmp_path / name).write_text("def test_passes(): pass")
    (tmp_path / "pytest.ini").write_text("[pytest]")
    files = [first, *[name for name in ("test_a.py", *SHORT) if name != first]]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", str(workers), *OPTIONS, *LIMIT, *files],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    passed = Counter(line.split()[-1] for line in ran.stdout.splitlines() if " PASSED " in line)
    expected = ["test_a.py::test_first", "test_a.py::test_last", *[f"{name}::test_passes" for name in SHORT]]
    assert passed == Counter(expected), ran.stdout + ran.stderr
    assert "1 failed, 9 passed" in ran.stdout


def test_only_the_first_workers_collect_what_seldom_waits(tmp_path: Path) -> None:
    for folder, count in (("unit", 3), ("e2e", 6)):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "tests" / folder / f"test_{folder}{number}.py").write_text(WHO)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests")

    def who(*arguments: str) -> dict[str, set[str]]:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "4", *OPTIONS, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SEEN": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "9 passed" in ran.stdout
        return {file.name: set(file.read_text().split()) for file in tmp_path.glob("gw*")}

    known = who()
    assert {name: "unit" in folders for name, folders in known.items()} == {
        "gw0": True,
        "gw1": True,
        "gw2": False,
        "gw3": False,
    }
    assert all("e2e" in folders for folders in known.values())
    assert all("unit" in folders for folders in who("--deselect", "tests/none").values())
