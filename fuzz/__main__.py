"""Fuzz each reader in a process of its own; what breaks one is printed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fuzz.targets import TARGETS

_LIMITS: Final = ("-rss_limit_mb=2048", "-timeout=10", "-max_len=4096", "-verbosity=0", "-print_final_stats=1")


def fuzz(name: str, *options: str) -> int:
    """Run one reader under the fuzzer, and print each input that it broke on; the fuzzer's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fuzz.one", name, *_LIMITS, f"-artifact_prefix={folder}/", *options]
        status = subprocess.run(command).returncode
        for found in sorted(Path(folder).iterdir()):
            print(f"fuzz: {name} broke on {found.read_bytes()!r} ({found.name})")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all readers, or one; exit status 1 if any broke."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--seconds", type=int, default=60, help="for each reader")
    bound.add_argument("--runs", type=int, help="for each reader; with the same seed the same inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; 0: another one each time")
    parser.add_argument("--only", choices=TARGETS)
    given = parser.parse_args(arguments)
    options = [f"-seed={given.seed}", f"-runs={given.runs}" if given.runs else f"-max_total_time={given.seconds}"]
    names = [given.only] if given.only else list(TARGETS)
    broken = [name for name in names if fuzz(name, *options)]
    print(f"fuzz: {len(names) - len(broken)} of {len(names)} readers held; broken: {', '.join(broken) or 'none'}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
