"""The hearth command, as somebody types it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from hearth.cli.main import run
from tests.support.umask import kept_umask


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Cli:
    """Runs the command against one server, with a home folder of its own.

    In this process, with its own arguments, environment and streams: a test of many commands would else mostly start
    interpreters.
    """

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
        named = {"FN_API_URL": url} if url else {}
        self.environment = {**inherited, **named, "HOME": str(home), **environment}

    def run(
        self,
        *arguments: str | Path,
        stdin: str = "",
        cwd: Path | None = None,
        streams: Mapping[str, TextIO | None] | None = None,
        **environment: str,
    ) -> Done:
        """Run it, with nobody at the terminal; or with given streams instead of those that hold what is written."""
        names = ("stdin", "stdout", "stderr")
        own: dict[str, Any] = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in names}
        own["stdin"].buffer.write(stdin.encode())
        own["stdin"].buffer.seek(0)
        argv = ["hearth", *map(str, arguments)]
        with (
            mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            mock.patch.multiple(sys, argv=argv, **{**own, **(streams or {})}),
            contextlib.chdir(cwd or Path.cwd()),
            kept_umask(),
        ):
            status = _status()
        for stream in own.values():
            stream.flush()
        stdout, stderr = (own[name].buffer.getvalue().decode() for name in ("stdout", "stderr"))
        return Done(status, stdout, stderr)

    def __call__(self, *arguments: str | Path, stdin: str = "", cwd: Path | None = None, **environment: Any) -> str:
        """What it prints; it must succeed."""
        done = self.run(*arguments, stdin=stdin, cwd=cwd, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What it prints, decoded."""
        return json.loads(self(*arguments))

    def fails(self, status: int, *arguments: str | Path, stdin: str = "", cwd: Path | None = None, **env: Any) -> str:
        """The one line that a failing command writes to stderr."""
        done = self.run(*arguments, stdin=stdin, cwd=cwd, **env)
        assert done.returncode == status, done.stdout + done.stderr
        assert done.stderr.startswith("hearth: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()


def _status() -> int:
    try:
        run()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 0
