"""hearth test."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import httpx
import typer

from hearth.aio.clock import SystemClock, pause
from hearth.cli import local
from hearth.cli.build import FollowOutside, load
from hearth.cli.client import Client
from hearth.cli.local_secrets import SecretsFile, find_values
from hearth.cli.output import CommandError, note, say, show_json
from hearth.cli.session import session
from hearth.models.route import clean_path
from hearth.projects import FuncFile
from hearth.projects.cases import Case, load_cases
from hearth.settings import DriverName
from hearth.telemetry import logs

#: Seconds after an answer in which lines of its call may come: a Docker Engine passes them on by another way.
_LATE_LOG_S: Final = 2.0
#: Seconds between two looks at a log.
_LOOK_S: Final = 0.1


def check(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml and a test.yaml.")] = Path(),
    driver: Annotated[
        DriverName | None, typer.Option("--driver", help="Run as a process or as an image.", show_default=False)
    ] = None,
    remote: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--remote",
            metavar="APP /PATH",
            help="Test the deployed function instead of the folder.",
            show_default=False,
        ),
    ] = None,
    api_url: Annotated[
        str,
        typer.Option(
            "--api-url", help="URL of the server of --remote (default: from the context).", show_default=False
        ),
    ] = "",
    output: Annotated[Literal["text", "json"], typer.Option("--output", help="Output format.")] = "text",
    secrets: SecretsFile = None,
    follow_outside: FollowOutside = False,
) -> None:
    """Call a function as the cases in test.yaml (or Fn's test.json) say. Exit status 1: a case failed.

    Examples:
        hearth test
        hearth test hello --output json
    """
    func = load(folder)
    cases, warnings = load_cases(folder)
    for warning in warnings:
        note(f"hearth: {warning}")
    logs.configure("error")
    if remote is not None:
        results = asyncio.run(_test_remote(func, cases, remote, session(ctx).client(api_url)))
    else:
        results = asyncio.run(_test(func, cases, driver, find_values(func, secrets), follow_outside))
    _tell(results, output)
    if any(result["wrong"] for result in results):
        raise typer.Exit(1)


async def _test_remote(
    func: FuncFile, cases: list[Case], remote: tuple[str, str], server: Client
) -> list[dict[str, Any]]:
    await asyncio.to_thread(server.log_in)
    path = clean_path(remote[1])
    try:
        # New connections: one that was open before the credentials were found may lead to another server.
        client = local.remote_client(server.url, remote[0], server.credentials, server.tls)
        async with client.http:
            return [_skipped(case) if case.config else await _judge(client, path, case, func) for case in cases]
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise CommandError(f"{server.url}: {exc or type(exc).__name__}") from exc


async def _test(
    func: FuncFile, cases: list[Case], driver: DriverName | None, secrets: dict[str, str], follow_outside: bool
) -> list[dict[str, Any]]:
    async with _served(func, local.driver_for(func, driver), follow_outside) as (client, image):
        await client.set_secrets(secrets)
        results = []
        for case in cases:
            await client.deploy(local.answering(func), image, case.config)
            results.append(await _judge(client, func.route_path, case, func))
        return results


@contextlib.asynccontextmanager
async def _served(func: FuncFile, driver: DriverName, follow_outside: bool) -> AsyncIterator[tuple[local.Client, str]]:
    with local.temporary_settings(driver) as wanted:
        image = await asyncio.to_thread(local.build, func, wanted, driver, follow_outside=follow_outside)
        async with local.local_node(wanted) as client:
            yield client, image


async def _judge(client: local.Client, path: str, case: Case, func: FuncFile) -> dict[str, Any]:
    headers = {"Content-Type": func.content_type or "application/json", **case.headers}
    started = time.monotonic()
    called = await client.call(path, case.method, case.body, headers.items())
    answered = time.monotonic()
    log = called.log.decode("utf-8", "replace")
    while wrong := case.judge(called.status, called.headers, called.body, log):
        if not (case.log or case.error) or not called.call_id or time.monotonic() > answered + _LATE_LOG_S:
            break
        await pause(SystemClock(), _LOOK_S)
        log = (await client.log(called.call_id)).decode("utf-8", "replace")
    return {"name": case.name, "seconds": round(answered - started, 3), "wrong": wrong, "log": log, "skipped": ""}


def _skipped(case: Case) -> dict[str, Any]:
    reason = "a deployed function keeps its own configuration"
    return {"name": case.name, "seconds": 0.0, "wrong": [], "log": "", "skipped": reason}


def _tell(results: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        show_json({"tests": results})
        return
    for result in results:
        word = "SKIP" if result["skipped"] else "FAIL" if result["wrong"] else "ok"
        say(f"{word:<5} {result['name']} ({result['seconds']:.3f} s) {result['skipped']}".rstrip())
        for line in result["wrong"]:
            say(f"      {line}")
        if result["wrong"]:
            for line in result["log"].splitlines():
                say(f"      | {line}")
    failed, skipped = (sum(bool(result[word]) for result in results) for word in ("wrong", "skipped"))
    say(f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped")
