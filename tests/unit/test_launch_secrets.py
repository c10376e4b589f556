"""How the environment of a process is handed over: secrets pass no argument, which every user of the machine sees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hearth.drivers.local import launch

VALUES = ["plain", "two words\nand a line", "'quotes' \"and\" $HOME `id` \\n %s", "~", "a=b", "ünïcode"]
TELL = "import json, os; print(json.dumps(dict(os.environ)))"


def command(secrets: dict[str, str], variables: dict[str, str]) -> launch.Command:
    cmd = launch.lay_out([sys.executable, "-c", TELL], len(variables), secrets=list(secrets))
    return launch.enter(cmd, variables | secrets, launch.Limits())


def test_no_argument_of_a_launch_contains_a_secret(tmp_path: Path) -> None:
    """Each program of the chain is replaced by one that notes its arguments, then runs the real one."""
    made = command({"SECRET": "s3same", "TOKEN": "s3same too"}, {"PLAIN": "shown"})
    assert not [argument for argument in made.argv if "s3same" in argument]
    assert "s3same" not in repr(made)
    noting = tmp_path / "env"
    noting.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/seen\nexec /usr/bin/env "$@"\n')
    noting.chmod(0o755)
    argv = [argument.replace("/usr/bin/env", str(noting)) for argument in made.argv]
    assert argv != made.argv
    told = run(argv, made.env)
    assert (told["SECRET"], told["TOKEN"], told["PLAIN"]) == ("s3same", "s3same too", "shown")
    assert "PLAIN=shown" in (tmp_path / "seen").read_text()
    assert "s3same" not in (tmp_path / "seen").read_text()


@pytest.mark.parametrize("value", VALUES)
def test_a_secret_arrives_as_it_is_among_exactly_the_wanted_variables(value: str) -> None:
    made = command({"SECRET": value, "PWD": "mine"}, {"PATH": "/usr/bin", "A.b": "no name of a shell", "OLDPWD": "x"})
    told = run(made.argv, made.env)
    told.pop("LC_CTYPE", None)  # Python sets it itself
    wanted = {"SECRET": value, "PWD": "mine", "PATH": "/usr/bin", "A.b": "no name of a shell", "OLDPWD": "x"}
    assert told == wanted


def run(argv: list[str], env: Mapping[str, str]) -> dict[str, str]:
    """Run the chain with its pipes at 3, 4 and 5."""
    script = 'exec 3</dev/null 4>&1 5>&2; exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "pipes", *argv],
        env=dict(env),
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, str] = json.loads(done.stdout)
    return told
