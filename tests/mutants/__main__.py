"""``python -m tests.mutants [--guards] [MODULE...]``: play mutants of modules such as ``agent.slots``."""

from __future__ import annotations

import argparse
import sys

import pytest

from tests.mutants.play import ROOT, Player

#: The plugin imports a library whose plugin pytest would rewrite first.
REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"
PACKAGES = ("agent", "contracts", "access", "queues", "async_calls")
TESTS = ("tests/unit", "tests/conformance/test_queues.py")


def main() -> int:
    """Play them; the exit status is that of the tests as they are."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--guards", action="store_true", help="only those that were chosen by hand")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="tests that may catch them")
    parser.add_argument("modules", nargs="*", help=f"such as agent.slots (default: all of {', '.join(PACKAGES)})")
    given = parser.parse_args()
    player = Player(given.modules or _all(), guards=given.guards)
    options = ["-q", "-s", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", "-W", REWRITTEN]
    return int(pytest.main([*options, *given.tests], plugins=[player]))


def _all() -> list[str]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name != "__init__.py"]


if __name__ == "__main__":
    sys.exit(main())
