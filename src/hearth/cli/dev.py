"""hearth dev."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
import watchfiles

from hearth import nodes, settings
from hearth.cli import local
from hearth.cli.build import load
from hearth.cli.debugger import Debugger
from hearth.models.errors import HearthError
from hearth.projects import staging

#: Milliseconds in which files that are saved together count as one change.
_TOGETHER_MS: Final = 200
#: Seconds that running calls get when the command is stopped.
_GRACE_S: Final = 2.0


def dev(
    folder: Annotated[Path, typer.Argument(help="A folder with a func.yaml.")] = Path(),
    driver: Annotated[
        local.DriverName | None, typer.Option("--driver", help="As processes or as images.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0: any free port.")] = 8080,
    debug: Annotated[bool, typer.Option("--debug", help="Let a Python function listen for a debugger.")] = False,
    debug_port: Annotated[int, typer.Option("--debug-port", min=1, max=65535, help="Where it listens.")] = 5678,
) -> None:
    """Serve one folder, and build it again whenever a file in it is saved. Ctrl-C stops everything."""
    chosen = local.driver_for(load(folder), driver)
    local.log_functions_only()
    debugger = Debugger(debug_port) if debug else None
    with local.temporary_settings(chosen, port=port, grace_s=_GRACE_S) as wanted:
        asyncio.run(_Session(folder, chosen, wanted, debugger).run())


class _Session:
    """A node, and the folder that it serves."""

    def __init__(
        self, folder: Path, driver: local.DriverName, wanted: settings.Settings, debugger: Debugger | None
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._wanted = wanted
        self._debugger = debugger
        self._options = nodes.Options() if debugger is None else nodes.Options(limits=debugger.limits)
        self._url: asyncio.Future[str] | None = None
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._built = ""

    async def run(self) -> None:
        """Serve until the command is stopped."""
        try:
            await self._serve()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _serve(self) -> None:
        self._url = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notice())
            watching = group.create_task(self._watch())
            try:
                await nodes.serve(self._wanted, self._announce, self._options)
            finally:
                self._stopped.set()
                if not self._url.done():
                    watching.cancel()

    def _announce(self, node: nodes.Node, url: str) -> None:
        assert self._url is not None
        self._url.set_result(url)

    async def _watch(self) -> None:
        assert self._url is not None
        url = await self._url
        async with httpx.AsyncClient(base_url=url) as http:
            client = local.Client(http)
            while not self._stopped.is_set():
                if self._built != await asyncio.to_thread(staging.digest_of_sources, self._folder):
                    await self._renew(client, url)
                await self._changed.wait()
                self._changed.clear()

    async def _notice(self) -> None:
        """Watch the folder: from before the first build on, so that no save comes too early to be seen."""
        async for _ in watchfiles.awatch(self._folder, debounce=_TOGETHER_MS, stop_event=self._stopped):
            self._changed.set()
        self._changed.set()

    async def _renew(self, client: local.Client, url: str) -> None:
        """Build and deploy; what is wrong is said, and what was there before goes on serving."""
        # Before anything is read: what is saved from now on is a change.
        self._built = await asyncio.to_thread(staging.digest_of_sources, self._folder)
        try:
            func = await asyncio.to_thread(load, self._folder)
            packages: list[Path] = []
            if self._debugger is not None:
                func, packages = self._debugger.wrap(func, self._driver), self._debugger.packages
            await asyncio.to_thread(local.build, func, self._wanted, self._driver, packages)
            await client.deploy(func)
            typer.echo(f"serving {url}/r/{local.APP}{func.route_path}")
        except HearthError as exc:
            typer.echo(f"hearth: {exc}", err=True)
