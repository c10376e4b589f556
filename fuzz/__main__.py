"""Fuzz each reader in a process of its own: what it may say to bytes is an event or its own error, nothing else."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Final

from hearth.models.errors import HearthError
from hearth.protocols.base import CallInput
from hearth.protocols.formats import protocol_for
from hearth.queues.messages import decode_rows
from hearth.sql.address import parse

_CALL: Final = CallInput(
    call_id="0", method="POST", url="http://h/r/a/b", headers={}, content_length=0, deadline="2026-01-01T00:00:00Z"
)


def _protocol(name: str) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        """The first byte says into which pieces the others are cut."""
        decoder = protocol_for(name).decoder(_CALL)
        size, rest = (data[0] or 1, data[1:]) if data else (1, b"")
        try:
            for start in range(0, len(rest), size):
                decoder.feed(rest[start : start + size])
            decoder.feed_eof()
        except HearthError:
            pass

    return feed


def _message(data: bytes) -> None:
    decode_rows([("0", data)], 0.0)


def _address(data: bytes) -> None:
    try:
        parse(data.decode("utf-8", "surrogateescape"))
    except HearthError:
        pass


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "default": _protocol("default"),
    "http": _protocol("http"),
    "json": _protocol("json"),
    "message": _message,
    "address": _address,
}


def _run_one(name: str, seconds: int, corpus: str) -> None:
    import atheris  # only here: it has no wheel for every machine

    atheris.instrument_all()
    options = ["-rss_limit_mb=2048", "-timeout=10", "-max_len=4096", f"-max_total_time={seconds}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Run all targets, or one in this process; exit status 1 if any broke."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--only", choices=TARGETS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as corpus:
        if given.only:
            _run_one(given.only, given.seconds, corpus)
    if given.only:
        return 0
    broken = []
    for name in TARGETS:
        command = [sys.executable, "-m", "fuzz", "--only", name, "--seconds", str(given.seconds)]
        if subprocess.run(command).returncode:
            broken.append(name)
    print(f"fuzz: {len(TARGETS) - len(broken)} of {len(TARGETS)} readers held; broken: {', '.join(broken) or 'none'}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
