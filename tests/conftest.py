"""What every test may use."""

from __future__ import annotations

import os
import subprocess

import pytest

pytest_plugins = ["tests.support.databases"]


def docker_answers() -> bool:
    """Whether a Docker Engine is here."""
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def docker() -> None:
    """A Docker Engine: without one the test is skipped, but fails where CI=true."""
    if docker_answers():
        return
    message = "no Docker Engine; tools/engines.sh starts one"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
