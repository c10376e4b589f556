"""What every test may use."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping

import hypothesis
import pytest
import uvloop

from hearth.telemetry import redaction
from tests.support.redis_server import RedisServer, running_redis

# No test has a limit of real time: a busy machine would break it.
hypothesis.settings.register_profile("hearth", deadline=None)
hypothesis.settings.load_profile("hearth")

#: What the others need comes first.
PLUGINS = ("heap", "bytecode", "memory_folders", "blocking", "authorities", "databases", "durations", "scheduling")
pytest_plugins = [f"tests.support.{name}" for name in PLUGINS]


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C, also where the tests run in the background and ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of a node, for every async test."""
    return {"uvloop": uvloop.new_event_loop}


def docker_answers() -> bool:
    """Whether a Docker Engine is here."""
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


@pytest.fixture(autouse=True)
def other_secrets() -> None:
    """Forget the secrets of earlier tests: they may be words of this one's messages."""
    redaction.forget()


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
