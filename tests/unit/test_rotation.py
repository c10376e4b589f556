"""The rotation of the key of secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hearth.cli.data_lock import data_lock
from hearth.cli.secrets import secrets
from hearth.models.errors import StartUpError
from hearth.telemetry import logs


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Take back the level of the log that the command sets."""
    yield
    logs.reset()


def test_one_rotation_keeps_another_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_DATA_DIR", str(tmp_path))
    with data_lock(tmp_path, "secret-key.lock") as note:
        note("which encrypts secrets with a new key")
        refused = CliRunner().invoke(secrets, ["rotate-key"])
        assert isinstance(refused.exception, StartUpError)
        assert "which encrypts secrets with a new key" in str(refused.exception)
    assert CliRunner().invoke(secrets, ["rotate-key"]).exit_code == 0
