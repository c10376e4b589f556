"""Another state of this repository, installed beside it: what a change is compared with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.node import MULTI, write_function

_ROOT: Final = Path(__file__).parent.parent
#: Installed releases stay here: the next run of the same one needs no installation.
_FOLDER: Final = _ROOT / "build" / "releases"


class Release:
    """The ``hearth`` of a commit.

    Args:
        ref: Anything that git takes for a commit.

    Attributes:
        commit: Its full name.
        name: What tables call it.
        hearth: The command, once it is installed.
    """

    def __init__(self, ref: str) -> None:
        self.commit = _output(["git", "-C", str(_ROOT), "rev-parse", "--verify", f"{ref}^{{commit}}"])
        self.name = f"at {self.commit[:7]}"
        self._folder = _FOLDER / self.commit
        self.hearth = self._folder / ".venv" / "bin" / "hearth"

    def install(self) -> None:
        """Install it with the dependencies of its own lock file; nothing if it is installed already."""
        done = self._folder / "installed"
        if done.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.Popen(["git", "-C", str(_ROOT), "archive", self.commit], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(self._folder)], stdin=archive.stdout, check=True)
        if archive.wait():
            raise SystemExit(f"bench: git archive of {self.commit} failed")
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=self._folder, check=True)
        pip = [".venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", "requirements.lock"], cwd=self._folder, check=True)
        parts = [part for part in (".", "./fdk") if (self._folder / part).exists()]
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", *parts], cwd=self._folder, check=True)
        done.touch()

    def build(self, data: Path) -> str:
        """Build the function of the benchmarks for a node of it; its reference."""
        folder = data / "source"
        folder.mkdir()
        write_function(folder, MULTI)
        command = [str(self.hearth), "build", "--driver", "process", str(folder)]
        _output(command, FN_DATA_DIR=str(data))
        return "multi:1"


def _output(command: list[str], **variables: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
