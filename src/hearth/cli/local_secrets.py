"""Secrets for functions that run on this machine: from the environment, or from a file of the developer's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth.cli.output import CommandError
from hearth.models.errors import ApiError
from hearth.models.secret import is_secret_name, validate_secret_value
from hearth.projects import FuncFile
from hearth.settings import environment

SecretsFile = Annotated[
    Path | None,
    typer.Option(
        "--secrets",
        help="File with NAME=VALUE lines, outside the function's folder (default: the environment).",
        show_default=False,
    ),
]


def find_values(func: FuncFile, file: Path | None) -> dict[str, str]:
    """Return the values of a function's secrets: those of the file, else variables of the same names.

    Raises:
        CommandError: One is missing or no value of a secret, or the file is part of the function's folder.
    """
    given = {} if file is None else _read(func, file)
    variables = environment()
    found = {}
    for name in func.secrets or ():
        value = given.get(name, variables.get(name))
        if value is None:
            places = "in the environment (--secrets names a file)" if file is None else f"in {file} or the environment"
            raise CommandError(f"{func.where('secrets')}: {name} is not set {places}")
        try:
            validate_secret_value(value)
        except ApiError as exc:
            raise CommandError(f"{func.where('secrets')}: {name}: {exc.message}") from exc
        found[name] = value
    return found


def _read(func: FuncFile, file: Path) -> dict[str, str]:
    if file.resolve().is_relative_to(func.folder.resolve()):
        raise CommandError(f"{file}: lies in the function's folder, which is built and shared; move it elsewhere")
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise CommandError(f"{file}: must be UTF-8") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign or not is_secret_name(name.strip()):
            raise CommandError(f"{file}:{number}: must be NAME=VALUE")
        found[name.strip()] = value
    return found
