"""What every test may use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer, running_redis

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


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it running; each uses a prefix of its own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server
