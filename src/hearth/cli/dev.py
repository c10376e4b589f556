"""hearth dev."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
import watchfiles

from hearth import nodes, settings
from hearth.cli import local
from hearth.cli.build import FollowOutside, load
from hearth.cli.connecting import connection_options
from hearth.cli.debugger import Debugger
from hearth.cli.local_secrets import SecretsFile, find_values
from hearth.cli.output import note, say
from hearth.drivers.local import bundle
from hearth.models.errors import HearthError
from hearth.projects import ProjectError, sources

#: Milliseconds in which files that are saved together count as one change.
_TOGETHER_MS: Final = 200
#: What the watching library says of a file whose name is not UTF-8.
_UNDECODABLE: Final = "Unable to decode path"
#: Seconds between two looks at a folder with such a name.
_LOOK_S: Final = 0.5
#: Seconds that running calls get when the command is stopped.
_GRACE_S: Final = 2.0


def dev(
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path(),
    driver: Annotated[
        settings.DriverName | None, typer.Option("--driver", help="Run as processes or as images.", show_default=False)
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 for any free port.")
    ] = 8080,
    debug: Annotated[bool, typer.Option("--debug", help="Make a Python function listen for a debugger.")] = False,
    debug_port: Annotated[int, typer.Option("--debug-port", min=1, max=65535, help="Port of the debugger.")] = 5678,
    secrets: SecretsFile = None,
    follow_outside: FollowOutside = False,
) -> None:
    """Serve one folder, and build it again whenever a file in it is saved. Ctrl-C stops everything."""
    chosen = local.driver_for(load(folder), driver)
    local.log_functions_only()
    debugger = Debugger(debug_port) if debug else None
    # A debugger connects to the loopback interface of this machine.
    network = {} if debugger is None else {"function_network": "host"}
    with local.temporary_settings(chosen, port=port, grace_s=_GRACE_S, **network) as wanted:
        asyncio.run(_Session(folder, chosen, wanted, debugger, secrets, follow_outside).run())


class _Session:
    """A node, and the folder that it serves."""

    def __init__(
        self,
        folder: Path,
        driver: settings.DriverName,
        wanted: settings.Settings,
        debugger: Debugger | None,
        secrets: Path | None,
        follow_outside: bool,
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._wanted = wanted
        self._debugger = debugger
        self._secrets = secrets
        self._follow_outside = follow_outside
        self._outside: set[Path] = set()
        self._options = nodes.Options() if debugger is None else nodes.Options(limits=debugger.limits)
        self._url: asyncio.Future[str] | None = None
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._unwatch = asyncio.Event()
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
                self._unwatch.set()
                if not self._url.done():
                    watching.cancel()

    def _announce(self, node: nodes.Node, listeners: Sequence[nodes.Listener]) -> None:
        assert self._url is not None
        self._url.set_result(listeners[0].url)

    async def _watch(self) -> None:
        assert self._url is not None
        url = await self._url
        async with httpx.AsyncClient(base_url=url, **connection_options(url, asynchronous=True)) as http:
            client = local.Client(http)
            while not self._stopped.is_set():
                if await self._has_changed():
                    await self._renew(client, url)
                await self._changed.wait()
                self._changed.clear()

    async def _has_changed(self) -> bool:
        """Look at everything that a build takes; return whether it differs from what was built last.

        What is saved after this look is another change.
        """
        digest, outside = await asyncio.to_thread(self._look)
        if outside != self._outside:
            self._outside = outside
            self._unwatch.set()
        changed, self._built = digest != self._built, digest
        return changed

    def _look(self) -> tuple[str, set[Path]]:
        """Return a digest of what a build takes, and what links outside lead to. Blocks."""
        try:
            found = sources.scan(self._folder, follow_outside=self._follow_outside)
            return found.digest(), found.outside(self._folder)
        except ProjectError as exc:  # the build reports it
            return str(exc), self._outside

    async def _notice(self) -> None:
        """Watch the folder, and what links outside lead to, until the command is stopped.

        Watching begins before the first build, so no save comes too early to be seen.
        """
        while not self._stopped.is_set():
            self._unwatch.clear()
            watched = [self._folder, *(path for path in self._outside if path.exists())]
            asyncio.get_running_loop().call_soon(self._changed.set)  # saved while nothing was watched
            try:
                async for _ in watchfiles.awatch(
                    *watched, watch_filter=None, debounce=_TOGETHER_MS, stop_event=self._unwatch
                ):
                    self._changed.set()
            except* RuntimeError as failed:
                if not all(_UNDECODABLE in str(exc) for exc in failed.exceptions):
                    raise
                await self._look_again_and_again()
        self._changed.set()

    async def _look_again_and_again(self) -> None:
        """Have everything compared at intervals, until the command is stopped.

        The library could poll as well, but it compares whole seconds: it misses the second of two saves in one.
        """
        while not self._stopped.is_set():
            self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._stopped.wait()

    async def _renew(self, client: local.Client, url: str) -> None:
        """Build and deploy; what is wrong is said, and what was there before goes on serving."""
        try:
            func = await asyncio.to_thread(load, self._folder)
            packages: list[Path] = []
            if self._debugger is not None:
                func, packages = self._debugger.wrap(func, self._driver), self._debugger.packages
            image = await asyncio.to_thread(
                local.build, func, self._wanted, self._driver, packages, follow_outside=self._follow_outside
            )
            await client.set_secrets(await asyncio.to_thread(find_values, func, self._secrets))
            await client.deploy(func, image)
            await asyncio.to_thread(bundle.prune, self._wanted.bundles, {image}, before=math.inf)
            say(f"serving {url}/r/{local.APP}{func.route_path}")
        except HearthError as exc:
            note(f"hearth: {exc}")
