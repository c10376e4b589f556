"""hearth test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer

from hearth.cli import local
from hearth.cli.build import load
from hearth.cli.output import CommandError
from hearth.cli.session import session
from hearth.models.route import clean_path
from hearth.projects import FuncFile
from hearth.projects.cases import Case, load_cases
from hearth.telemetry import logs


def check(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder with a func.yaml and a test.yaml.")] = Path(),
    driver: Annotated[
        local.DriverName | None, typer.Option("--driver", help="As a process or as an image.", show_default=False)
    ] = None,
    remote: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--remote", metavar="APP /PATH", help="What is deployed there, not the folder.", show_default=False
        ),
    ] = None,
    api_url: Annotated[
        str, typer.Option("--api-url", help="Of the server of --remote, instead of the context's.", show_default=False)
    ] = "",
    output: Annotated[Literal["text", "json"], typer.Option("--output", help="How the results are told.")] = "text",
) -> None:
    """Call a function as the cases in test.yaml (or Fn's test.json) say. Exit status 1: a case failed."""
    func = load(folder)
    cases, warnings = load_cases(folder)
    for warning in warnings:
        typer.echo(f"hearth: {warning}", err=True)
    logs.configure("error")
    results = asyncio.run(_test(func, cases, driver, remote, api_url or session(ctx).url()))
    _tell(results, output)
    if any(result["wrong"] for result in results):
        raise typer.Exit(1)


async def _test(
    func: FuncFile, cases: list[Case], driver: local.DriverName | None, remote: tuple[str, str] | None, api_url: str
) -> list[dict[str, Any]]:
    if remote is not None:
        path = clean_path(remote[1])
        try:
            client = local.remote_client(api_url, remote[0])
            async with client.http:
                return [_skipped(case) if case.config else await _judge(client, path, case, func) for case in cases]
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise CommandError(f"{api_url}: {exc or type(exc).__name__}") from exc
    async with _served(func, local.driver_for(func, driver)) as client:
        results = []
        for case in cases:
            await client.deploy(func, case.config)
            results.append(await _judge(client, func.route_path, case, func))
        return results


@contextlib.asynccontextmanager
async def _served(func: FuncFile, driver: local.DriverName) -> AsyncIterator[local.Client]:
    with local.temporary_settings(driver) as wanted:
        await asyncio.to_thread(local.build, func, wanted, driver)
        async with local.local_node(wanted) as client:
            yield client


async def _judge(client: local.Client, path: str, case: Case, func: FuncFile) -> dict[str, Any]:
    headers = {"Content-Type": func.content_type or "application/json", **case.headers}
    begun = time.monotonic()
    called = await client.call(path, case.method, case.body, headers)
    took = time.monotonic() - begun
    wrong = case.judge(called.status, called.headers, called.body, called.log)
    return {"name": case.name, "seconds": round(took, 3), "wrong": wrong, "log": called.log, "skipped": ""}


def _skipped(case: Case) -> dict[str, Any]:
    reason = "a deployed function keeps its own configuration"
    return {"name": case.name, "seconds": 0.0, "wrong": [], "log": "", "skipped": reason}


def _tell(results: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        typer.echo(json.dumps({"tests": results}, indent=2))
        return
    for result in results:
        word = "SKIP" if result["skipped"] else "FAIL" if result["wrong"] else "ok"
        typer.echo(f"{word:<5} {result['name']} ({result['seconds']:.3f} s) {result['skipped']}".rstrip())
        for line in result["wrong"]:
            typer.echo(f"      {line}")
        if result["wrong"]:
            typer.echo("".join(f"      | {line}\n" for line in result["log"].splitlines()), nl=False)
    failed, skipped = (sum(bool(result[word]) for result in results) for word in ("wrong", "skipped"))
    typer.echo(f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped")
