"""What it costs to keep calls: warm calls with and without their records and logs, on each database.

``python -m bench.recording [--rounds 5] [--seconds 4] [--connections 16]``. Rounds with and without are interleaved;
the servers that it starts flush every commit to the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import servers
from tests.support.databases import folder, url
from tests.support.node import build_multi, running_node

from bench.load import Result, load


@contextlib.contextmanager
def database(name: str, place: Path) -> Iterator[str]:
    """The address of an empty database."""
    if name == "sqlite":
        yield f"sqlite3://{place}/fn.db"
        return
    place.chmod(0o755)
    start = servers.postgres if name == "postgres" else servers.mariadb
    with start(place, durable=True) as server:
        yield url(name, server)


def measure(name: str, rounds: int, seconds: float, connections: int) -> list[tuple[Result, Result]]:
    """Results with records, and without, of each round."""
    without = (sys.executable, "-m", "bench.unrecorded")
    with folder() as place, folder() as mine, folder() as other, database(name, place) as address:
        common = {"FN_DB_URL": address, "FN_MQ_URL": "memory://", "FN_LOG_LEVEL": "error"}
        images = [build_multi(data, data / "source") for data in (mine, other)]
        with (
            running_node("process", mine, images[0], **common) as on,
            running_node("process", other, images[1], command=without, **common) as off,
        ):
            path = on.route("warm", "http")
            found = []
            for number in range(rounds + 1):
                pair = [
                    load(node.url + path, node.process.pid, connections=connections, seconds=seconds)
                    for node in ((on, off) if number % 2 else (off, on))
                ]
                if any(result.errors for result in pair):
                    raise SystemExit(f"bench: {[result.errors for result in pair]} calls failed")
                if number:  # the first one starts the containers
                    found.append((pair[0], pair[1]) if number % 2 else (pair[1], pair[0]))
            return found


def main() -> None:
    """Print a table of all databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=16)
    chosen = parser.parse_args()
    print(
        "| database | calls/s, on / off | spread | a record costs, us CPU | spread |\n|---|---|---|---|---|", flush=True
    )
    for name in ("sqlite", "postgres", "mysql"):
        found = measure(name, chosen.rounds, chosen.seconds, chosen.connections)
        rates = [on.rate / off.rate for on, off in found]
        costs = [on.cpu_us - off.cpu_us for on, off in found]
        rate = f"{statistics.median(rates):.2f} | {min(rates):.2f} to {max(rates):.2f}"
        cost = f"{statistics.median(costs):.0f} | {min(costs):.0f} to {max(costs):.0f}"
        print(f"| {name} | {rate} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
