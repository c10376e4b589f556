"""A Python function that listens for a debugger."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Final

from hearth.cli import local
from hearth.cli.output import note
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

    def write_launch_file(self, folder: Path) -> None:
        """Write .vscode/launch.json, with which the editor attaches to the function; a file that exists stays.

        Raises:
            LocalError: The file cannot be written.
        """
        file = folder / ".vscode" / "launch.json"
        if file.exists():
            note(f"{file} stays as it is; attach a debugger to 127.0.0.1:{self._port}")
            return
        mapping = {"localRoot": "${workspaceFolder}", "remoteRoot": "."}
        configuration = {
            "name": "Attach to hearth dev",
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": self._port},
            "pathMappings": [mapping],
            "justMyCode": True,
        }
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"version": "0.2.0", "configurations": [configuration]}, indent=2) + "\n")
        except OSError as exc:
            raise local.LocalError(f"{file}: {exc.strerror or exc}") from exc
        note(f"{file} written: open {folder.absolute()} in VS Code and start 'Attach to hearth dev'")

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
            format=func.route().get("format"),
            memory=(func.memory or 0) + _MEMORY_MIB,
            timeout=_TIMEOUT_S,
            idle_timeout=MAX_IDLE_TIMEOUT_S,
        )
