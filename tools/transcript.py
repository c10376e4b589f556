"""Play the four commands from an empty folder to an answer, time them, and write docs/transcript.md."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "transcript.md"
HEARTH = Path(sys.executable).with_name("hearth")
COMMANDS = ("hearth init f", "cd f", "hearth deploy --app a", "hearth invoke a /f")

HEAD = """# From an empty folder to an answer

<!-- Written by tools/transcript.py; `make transcript` plays it again. -->

Four commands, typed while `FN_DRIVER=process hearth start` serves in another terminal.

```console
"""


def main() -> None:
    """Play and write."""
    with tempfile.TemporaryDirectory(prefix="hearth-transcript-") as made:
        folder = Path(made)
        environment = {
            **os.environ,
            "HOME": made,
            "FN_DATA_DIR": f"{made}/data",
            "FN_PORT": "0",
            "FN_DRIVER": "process",
        }
        with subprocess.Popen([HEARTH, "start"], env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                text = _play(folder, {**environment, "FN_API_URL": _url(server)})
            finally:
                server.terminate()
    PAGE.write_text(text)
    print(text)


def _play(folder: Path, environment: dict[str, str]) -> str:
    lines, url, began = [], environment["FN_API_URL"], time.monotonic()
    work = folder / "work"
    work.mkdir()
    for command in COMMANDS:
        lines.append(f"$ {command}")
        name, *arguments = command.split()
        if name == "cd":
            work /= arguments[0]
            continue
        done = subprocess.run(
            [HEARTH, *arguments], cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{command}: {done.stderr}")
        lines += done.stdout.replace(url, "http://localhost:8080").splitlines()
    took = time.monotonic() - began
    body = "\n".join(lines)
    return (
        f"{HEAD}{body}\n```\n\nPlayed in {took:.1f} s on a machine that was shared, the answer's own time included.\n"
    )


def _url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        name, _, value = line.strip().partition(" ")
        if name == "url":
            return value.strip()
    sys.exit("the node did not start")


if __name__ == "__main__":
    main()
