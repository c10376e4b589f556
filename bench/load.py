"""The load generator: wrk, which is not ours and costs little beside what it measures."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

#: The body of every call: what the function sends back is one letter.
BODY: Final = '{"echo":"x"}'

_SCRIPT: Final = """
wrk.method = "%s"
wrk.body = %s
%s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%%d,"seconds":%%f,"errors":%%d,"p50_ms":%%f,"p99_ms":%%f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a server answered to one load, and what that cost it.

    Attributes:
        cpu_us: Processor time of the server's process for each request, in microseconds.
    """

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    cpu_us: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def load(
    url: str,
    pid: int | None,
    *,
    connections: int,
    seconds: float,
    method: str = "POST",
    body: str = BODY,
    script: str = "",
) -> Result:
    """Load a URL over so many kept connections; what varies from one request to the next is a script of wrk's."""
    if shutil.which("wrk") is None:
        raise SystemExit("bench: wrk makes the load; install it (Debian: apt-get install wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(_SCRIPT % (method, json.dumps(body) if body else "nil", script))
        file.flush()
        before = cpu_seconds(pid) if pid else 0.0
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", file.name, url]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"bench: {done.stderr}")
        spent = cpu_seconds(pid) - before if pid else 0.0
    told = json.loads(done.stderr[done.stderr.rindex("{") :])
    return Result(**told, cpu_us=spent * 1e6 / max(1, told["requests"]))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Memory of a process that is its own."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Rss:")) / 1024
