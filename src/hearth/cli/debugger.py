"""A Python function that listens for a debugger."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Final

from hearth.cli import local
from hearth.models.route import MAX_IDLE_TIMEOUT_S, RouteLimits
from hearth.projects import FuncFile, staging
from hearth.settings import DriverName

_PACKAGE: Final = "debugpy"
#: A call may be held at a breakpoint for a day.
_TIMEOUT_S: Final = 24 * 3600
#: What the debugger needs above the function's own memory, MiB.
_MEMORY_MIB: Final = 512


class Debugger:
    """debugpy, taken from where Hearth is installed: the function runs with the same Python.

    Raises:
        LocalError: It is not installed.
    """

    #: What a node must allow, so that a call may be held at a breakpoint.
    limits: Final = RouteLimits(sync_timeout_s=_TIMEOUT_S)

    def __init__(self, port: int) -> None:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise local.LocalError("--debug needs debugpy beside Hearth: pip install debugpy")
        self.packages = [Path(found.submodule_search_locations[0])]
        self._port = port

    def wrap(self, func: FuncFile, driver: DriverName) -> FuncFile:
        """Return the function under the debugger, with a timeout that leaves time for a person.

        Raises:
            LocalError: It is no Python function that runs as a process.
        """
        if func.kind != "python" or driver != "process":
            raise local.LocalError(f"{func.file}: --debug is for Python functions that run as processes")
        interpreter, *words = staging.python_command(func, "python3")
        return dataclasses.replace(
            func,
            entrypoint=(interpreter, "-m", _PACKAGE, "--listen", f"127.0.0.1:{self._port}", *words),
            cmd=None,
            memory=(func.memory or 0) + _MEMORY_MIB,
            timeout=_TIMEOUT_S,
            idle_timeout=MAX_IDLE_TIMEOUT_S,
        )
