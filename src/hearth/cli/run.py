"""hearth run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from hearth.cli import local
from hearth.cli.build import load
from hearth.cli.output import show_bytes
from hearth.projects import FuncFile
from hearth.telemetry import logs


def run(
    folder: Annotated[Path, typer.Argument(help="A folder with a func.yaml.")] = Path(),
    driver: Annotated[
        local.DriverName | None, typer.Option("--driver", help="As a process or as an image.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Of the request.")] = "POST",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value', of the request.", show_default=False)
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, more configuration.", show_default=False)
    ] = None,
) -> None:
    """Run a function once as the platform would: the body is stdin, the answer stdout, the log stderr.

    Exit status 1: the answer is an error.
    """
    func = load(folder)
    headers = {"Content-Type": func.content_type or "application/json"}
    headers |= dict(_split(text, ":", "--header") for text in header or ())
    config = dict(_split(text, "=", "--env") for text in env or ())
    body = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    logs.configure("error")
    called = asyncio.run(_run(func, local.driver_for(func, driver), config, method, body, headers))
    typer.echo(called.log, err=True, nl=False)
    show_bytes([called.body])
    if called.status >= 400:
        typer.echo(f"hearth: status {called.status}", err=True)
        raise typer.Exit(1)


async def _run(
    func: FuncFile, driver: local.DriverName, config: dict[str, str], method: str, body: bytes, headers: dict[str, str]
) -> local.Called:
    with local.temporary_settings(driver) as wanted:
        await asyncio.to_thread(local.build, func, wanted, driver)
        async with local.local_node(wanted) as client:
            await client.deploy(func, config)
            return await client.call(func.route_path, method, body, headers)


def _split(text: str, sign: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name:
        raise local.LocalError(f"{option} {text!r}: expected NAME{sign}VALUE")
    return name.strip(), value.strip() if sign == ":" else value
