"""``make run``: what it starts ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.support.processes import spawn

SAMPLE = Path(__file__).parents[2] / "tools" / "run_sample.py"


@pytest.mark.parametrize(
    ("last_line", "auth"),
    [("driver", "loopback"), ("Serving;", "loopback"), ("Serving;", "required"), ("Serving;", "off")],
)
def test_a_node_ends_with_the_sample_that_started_it(tmp_path: Path, last_line: str, auth: str) -> None:
    environment = {**os.environ, "FN_PORT": "0", "FN_DATA_DIR": str(tmp_path), "FN_AUTH": auth}
    sample = spawn([sys.executable, SAMPLE], env=environment, stdout=subprocess.PIPE, text=True)
    url, seen = "", False
    assert sample.stdout is not None
    with sample.stdout as lines:
        for line in lines:
            name, _, value = line.strip().partition(" ")
            url = value.strip() if name == "url" else url
            seen = seen or name == last_line
            if name == last_line:
                sample.send_signal(signal.SIGTERM)
    assert sample.wait(60) == 128 + signal.SIGTERM
    assert url
    assert seen
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
