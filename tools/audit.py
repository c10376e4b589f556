"""Look the locked dependencies up among known flaws. A flaw fails; a source that cannot be reached is a warning."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

#: pip-audit's exit status is 1 for flaws and for its own troubles alike; this is how it says the first.
_FOUND = "known vulnerabilit"
_LIMIT_S = 120


def main() -> int:
    """The exit status: 1 for a flaw, and, with --strict, for a source that did not answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="+", type=Path)
    parser.add_argument("--source", help="address of a service that answers as OSV does")
    parser.add_argument("--strict", action="store_true", help="fail if the source cannot be reached")
    given = parser.parse_args()
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--disable-pip", "--require-hashes"]
    command += ["--vulnerability-service=osv", *([f"--osv-url={given.source}"] if given.source else [])]
    command += [f"--requirement={lock}" for lock in given.locks]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        return _unreachable(f"no answer in {_LIMIT_S} s", strict=given.strict)
    if done.returncode == 0:
        return 0
    if _FOUND in done.stdout + done.stderr and "Found" in done.stdout + done.stderr:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 1
    said = [line for line in done.stderr.strip().splitlines() if line] or ["no reason given"]
    return _unreachable(said[-1][:200], strict=given.strict)


def _unreachable(reason: str, *, strict: bool) -> int:
    print(f"audit: the dependencies were NOT looked up: {reason}", file=sys.stderr)
    return int(strict)


if __name__ == "__main__":
    sys.exit(main())
