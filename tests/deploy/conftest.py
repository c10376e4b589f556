"""The node's image, built once for all of these tests."""

from __future__ import annotations

import pytest
from tests.support.node_image import node_image


@pytest.fixture(scope="session")
def image(docker: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its name."""
    return node_image(tmp_path_factory.mktemp("context"))
