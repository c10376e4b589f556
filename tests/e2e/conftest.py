"""One node for each driver, shared by the tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node


@pytest.fixture(scope="session", params=["process", "docker"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A running node."""
    data = tmp_path_factory.mktemp(f"node-{request.param}")
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = python_image(MULTI)
    else:
        image = build_multi(data, data / "source")
    with running_node(request.param, data, image, FN_FUNCTION_NETWORK="internet") as running:
        yield running


@pytest.fixture(params=["http", "json", "http-stream"])
def hot(request: pytest.FixtureRequest) -> str:
    """Each hot format."""
    return str(request.param)


@pytest.fixture(params=["default", "http", "json", "http-stream"])
def any_format(request: pytest.FixtureRequest) -> str:
    """Each format."""
    return str(request.param)
