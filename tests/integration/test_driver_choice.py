"""A data folder remembers what runs its functions: a Docker that comes up later does not take them over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hearth import settings
from hearth.models.errors import StartUpError
from hearth.nodes.drivers import open_driver
from hearth.nodes.identity import node_id
from hearth.telemetry.node import Telemetry


class Engine:
    """Something that listens where an Engine would."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)

    def was_asked(self) -> bool:
        """Whether anybody has connected."""
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An Engine that must not be asked."""
    found = Engine(tmp_path / "engine.sock")
    yield found
    found.close()


async def opened(data: Path, driver: str = "auto", **more: Any) -> str:
    """The name of the driver that a start takes."""
    wanted = settings.load(data_dir=data, driver=driver, **more)
    chosen = await open_driver(wanted, node_id(data), "instance", Telemetry())
    await chosen.close()
    return chosen.name


def note(data: Path, text: str) -> Path:
    data.mkdir(exist_ok=True)
    (data / "driver").write_text(text)
    return data


async def test_an_engine_that_came_up_later_does_not_take_over_what_ran_as_processes(
    tmp_path: Path, engine: Engine
) -> None:
    data = tmp_path / "data"
    assert await opened(data, "process") == "process"
    assert await opened(data, docker_host=engine.host) == "process"
    assert not engine.was_asked()


async def test_bundles_of_an_earlier_release_decide(tmp_path: Path, engine: Engine) -> None:
    data = tmp_path / "data"
    (data / "bundles" / "greet").mkdir(parents=True)
    assert await opened(data, docker_host=engine.host) == "process"
    assert not engine.was_asked()
    assert (data / "driver").read_text() == "process\n"


async def test_an_engine_that_is_down_leaves_the_question_open(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert await opened(data, docker_host=f"unix://{tmp_path}/none.sock") == "process"
    assert not (data / "driver").exists()


@pytest.mark.usefixtures("docker")
async def test_a_new_folder_takes_docker_if_an_engine_answers_and_remembers_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert await opened(data) == "docker"
    with pytest.raises(StartUpError, match=r"the functions of this data folder run in Docker \(remembered in .*driver"):
        await opened(data, docker_host=f"unix://{tmp_path}/none.sock")
    (data / "bundles" / "stray").mkdir(parents=True)
    assert await opened(data) == "docker"


async def test_another_driver_has_to_be_asked_for_and_is_warned_of(tmp_path: Path) -> None:
    data = note(tmp_path / "data", "docker\n")
    with capture_logs() as logs:
        assert await opened(data, "process") == "process"
    warning = next(entry for entry in logs if entry["log_level"] == "warning" and "driver" in entry["event"])
    assert (warning["before"], warning["now"]) == ("docker", "process")
    with capture_logs() as logs:
        assert await opened(data, "auto") == "process"
    assert not any("driver of this data folder" in entry["event"] for entry in logs)


async def test_a_note_that_names_no_driver_is_refused(tmp_path: Path) -> None:
    data = note(tmp_path / "data", "magic\n")
    with pytest.raises(StartUpError, match="driver: must hold process or docker; remove it, and set FN_DRIVER"):
        await opened(data)
