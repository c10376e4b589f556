"""hearth run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from hearth.cli import local
from hearth.cli.build import FollowOutside, load
from hearth.cli.fields import pairs, request_header
from hearth.cli.local_secrets import SecretsFile, find_values
from hearth.cli.output import is_terminal, note, note_log, show_bytes
from hearth.projects import FuncFile
from hearth.settings import DriverName
from hearth.telemetry import logs


def run(
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path(),
    driver: Annotated[
        DriverName | None, typer.Option("--driver", help="Run as a process or as an image.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option("--method", help="HTTP method of the request.")] = "POST",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", help="Header 'Name: value' of the request. Can be repeated.", show_default=False
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", help="Additional configuration NAME=VALUE. Can be repeated.", show_default=False),
    ] = None,
    secrets: SecretsFile = None,
    follow_outside: FollowOutside = False,
) -> None:
    """Run a function once as the platform would: the body is stdin, the answer stdout, the log stderr.

    Exit status 1: the answer is an error.

    Examples:
        echo '{"name": "Ada"}' | hearth run hello
        hearth run hello -e COLOUR=green < body.json
    """
    func = load(folder)
    headers = [request_header(text) for text in header or ()]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", func.content_type or "application/json"))
    config = pairs(env, "--env")
    values = find_values(func, secrets)
    body = b"" if sys.stdin is None or is_terminal(sys.stdin) else sys.stdin.buffer.read()
    logs.configure("error")
    called = asyncio.run(
        _run(func, local.driver_for(func, driver), config, values, method, body, headers, follow_outside)
    )
    note_log(called.log)
    show_bytes([called.body])
    if called.status >= 400:
        note(f"hearth: status {called.status}")
        raise typer.Exit(1)


async def _run(
    func: FuncFile,
    driver: DriverName,
    config: dict[str, str],
    secrets: dict[str, str],
    method: str,
    body: bytes,
    headers: list[tuple[str, str]],
    follow_outside: bool,
) -> local.Called:
    with local.temporary_settings(driver) as wanted:
        image = await asyncio.to_thread(local.build, func, wanted, driver, follow_outside=follow_outside)
        async with local.local_node(wanted) as client:
            await client.set_secrets(secrets)
            await client.deploy(local.answering(func), image, config)
            return await client.call(func.route_path, method, body, headers)
