"""``make profile``: where the processor time of a warm call goes, by samples of a node under load.

py-spy samples all threads of the node. Prints the functions in which most of the samples lie, per thread, and writes a
flame graph. A thread that waits in a library counts as working there: compare lines of one thread.

``--system-calls`` counts those of the node with strace instead: how many each call takes.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.support.node import RunningNode, build_multi, running_node

from bench.load import Result, load

#: Samples per second, of each thread.
_RATE: Final = 500
#: Seconds by which the load lasts longer than the samples, or the count of system calls longer than the load.
_MARGIN_S: Final = 2
_SHOWN: Final = 25
_FLAMES: Final = Path("build/profile.svg")
#: A line of ``strace -c``: share, seconds, microseconds per call, calls, perhaps errors, name.
_COUNT: Final = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)


def main() -> None:
    """Load a node, and print where its time goes."""
    parser = argparse.ArgumentParser(prog="python -m bench.call_profile", description=__doc__)
    parser.add_argument("--format", default="http", help="format of the route (default: http)")
    parser.add_argument("--connections", type=int, default=32, help="connections of the load (default: 32)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each recording (default: 5)")
    parser.add_argument("--svg", type=Path, default=_FLAMES, help=f"file for the flame graph (default: {_FLAMES})")
    parser.add_argument("--system-calls", action="store_true", help="count system calls with strace instead")
    given = parser.parse_args()
    with _warm_node(given.format, given.connections) as (node, url):
        pid = str(node.process.pid)
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            seconds, longer = str(given.seconds), given.seconds + _MARGIN_S
            if given.system_calls:  # counts for longer than the load lasts
                limit = ["timeout", "-s", "INT", str(longer)]
                command = [*limit, _tool("strace"), "-qcf", "-p", pid, "-o", str(told)]
                done = _recorded(command, url, given.connections, given.seconds)
                print(_system_calls(told.read_text(), done))
                return
            spy = [_tool("py-spy"), "record", "--nonblocking", "--threads", "-p", pid, "-d", seconds, "-r", str(_RATE)]
            done = _recorded([*spy, "-f", "raw", "-o", str(told)], url, given.connections, longer)
            print(f"{done.rate:.0f} calls/s, {done.cpu_us:.0f} us of processor time each\n")
            print("\n\n".join(_tables(told.read_text().splitlines())))
            given.svg.parent.mkdir(parents=True, exist_ok=True)
            _recorded([*spy, "-f", "flamegraph", "-o", str(given.svg)], url, given.connections, longer)
            print(f"\nflame graph: {given.svg}")


@contextlib.contextmanager
def _warm_node(format_name: str, connections: int) -> Iterator[tuple[RunningNode, str]]:
    """Start a node that has its containers; yield it with the URL of the function."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with running_node("process", data, build_multi(data, data / "source")) as node:
            url = node.url + node.route(format_name, format_name, memory=64)
            load(url, node.process.pid, connections=connections, seconds=_MARGIN_S)
            yield node, url


def _recorded(command: Sequence[str], url: str, connections: int, seconds: int) -> Result:
    """Run a recording, and load the node for some seconds; return what the load saw."""
    recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    pid = int(command[command.index("-p") + 1])
    done = load(url, pid, connections=connections, seconds=seconds)
    told = recording.communicate()[1]
    if recording.returncode not in (0, 124):  # timeout ends strace with 124
        raise SystemExit(f"bench: {command[0]}: {told.strip()}")
    return done


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit(f"bench: {name} takes the profile; install it (py-spy: pip install py-spy; strace: apt-get)")
    return found


def _tables(stacks: Sequence[str]) -> Iterator[str]:
    """Yield a table for each thread that worked, the busiest first.

    Args:
        stacks: Lines of frames from the outermost to the innermost, with the number of samples: ``a;b;c 12``.
    """
    own: dict[str, Counter[str]] = {}
    total: dict[str, Counter[str]] = {}
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        thread, *functions = frames.split(";")
        if functions:
            own.setdefault(thread, Counter())[functions[-1]] += int(count)
            total.setdefault(thread, Counter()).update(dict.fromkeys(functions, int(count)))
    every = sum(sum(counts.values()) for counts in own.values())
    for thread in sorted(own, key=lambda name: -sum(own[name].values())):
        samples = sum(own[thread].values())
        lines = [f"{thread}: {100 * samples / every:.0f} % of all samples", "   own  total  function"]
        lines += [
            f"{100 * count / samples:5.1f}% {100 * total[thread][name] / samples:5.1f}%  {name}"
            for name, count in own[thread].most_common(_SHOWN)
        ]
        yield "\n".join(lines)


def _system_calls(told: str, done: Result) -> str:
    """Return the system calls for each call of the function, most frequent first."""
    counts = sorted(((int(count), name) for count, name in _COUNT.findall(told) if name != "total"), reverse=True)
    lines = [f"{count / done.requests:7.2f}  {name}" for count, name in counts[:_SHOWN]]
    return "\n".join(["system calls for each call of the function, about", *lines])


if __name__ == "__main__":
    main()
