"""What functions in other languages need of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: Where npm keeps what it has fetched; it asks the registry only for what is not there.
NPM: Final = {
    "npm_config_cache": str(ROOT / ".venv" / "npm-cache"),
    "npm_config_prefer_offline": "true",
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_audit": "false",
}


def program(name: str, package: str) -> str:
    """The path of a program: without it the test is skipped, but fails where CI=true."""
    if found := shutil.which(name):
        return found
    message = f"no {name}; tools/engines.sh installs {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
