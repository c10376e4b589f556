"""Servers that are named in the environment join the conformance suites (CONTRIBUTING.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = [
    "tests/conformance/test_datastore.py",
    "tests/conformance/test_queues.py",
    "tests/conformance/test_logstores.py",
]


def collected(**environment: str) -> str:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_suites_run_against_named_servers_too() -> None:
    named = collected(
        POSTGRES_URL="postgres://u:p@db/x",
        MYSQL_URL="mysql://u:p@tcp(db)/x",
        REDIS_URL="redis://queue/",
        MINIO_URL="s3://k:s@s3:9000/us-east-1/logs",
    )
    for name in ("named postgres", "named mysql", "named redis", "named s3"):
        assert name in named
    assert len(named.splitlines()) > len(collected().splitlines())
