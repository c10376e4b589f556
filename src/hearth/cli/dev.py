"""hearth dev."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import httpx
import typer
import watchfiles

from hearth import nodes, settings
from hearth.agent.listeners import CallListener
from hearth.cli import local
from hearth.cli.build import FollowOutside, load
from hearth.cli.connecting import connection_options
from hearth.cli.debugger import Debugger
from hearth.cli.local_secrets import SecretsFile, find_values
from hearth.cli.output import note, say, short_time
from hearth.drivers.local import bundle
from hearth.models.call import Call
from hearth.models.errors import HearthError, StartUpError
from hearth.models.route import LIMITS
from hearth.models.times import ZERO
from hearth.nodes.ports import listen
from hearth.projects import ProjectError, sources
from hearth.server.extensions import Server

#: Milliseconds in which files that are saved together count as one change.
_TOGETHER_MS: Final = 200
#: What the watching library says of a file whose name is not UTF-8.
_UNDECODABLE: Final = "Unable to decode path"
#: Seconds between two looks at a folder with such a name.
_LOOK_S: Final = 0.5
#: Seconds that running calls get when the command is stopped.
_GRACE_S: Final = 2.0
_HOST: Final = "127.0.0.1"
_USUAL_PORT: Final = 8080
_MIB: Final = 1 << 20


def dev(
    folder: Annotated[Path, typer.Argument(help="Folder with a func.yaml.")] = Path(),
    driver: Annotated[
        settings.DriverName | None, typer.Option("--driver", help="Run as processes or as images.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port to listen on; 0 for any free port (default: 8080 if it is free, else another).",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Make a Python function listen for a debugger; write .vscode/launch.json if missing."
        ),
    ] = False,
    debug_port: Annotated[int, typer.Option("--debug-port", min=1, max=65535, help="Port of the debugger.")] = 5678,
    secrets: SecretsFile = None,
    follow_outside: FollowOutside = False,
    open_dashboard: Annotated[bool, typer.Option("--open", help="Open the dashboard in the browser.")] = False,
) -> None:
    """Serve one folder, and build it again whenever a file in it is saved. Ctrl-C stops everything.

    One line for each call says method, path, status, time, memory, and what went wrong.

    Examples:
        hearth dev
        hearth dev hello --port 9000
        hearth dev hello --debug
        hearth dev hello --open
    """
    chosen = local.driver_for(load(folder), driver)
    local.log_functions_only()
    debugger = Debugger(debug_port) if debug else None
    if debugger is not None:
        debugger.write_launch_file(folder)
    # A debugger connects to the loopback interface of this machine.
    network = {} if debugger is None else {"function_network": "host"}
    with local.temporary_settings(
        chosen, port=_port() if port is None else port, grace_s=_GRACE_S, **network
    ) as wanted:
        asyncio.run(_Session(folder, chosen, wanted, debugger, secrets, follow_outside, open_dashboard).run())


def _port() -> int:
    """Return the usual port, or 0 if it is taken."""
    try:
        listen(_HOST, _USUAL_PORT).close()
    except StartUpError:
        note(f"hearth: port {_USUAL_PORT} is taken; listening on another")
        return 0
    return _USUAL_PORT


def _open_dashboard(url: str) -> None:
    """Show the dashboard in the user's browser, or say where it is."""
    page = f"{url}/ui/"
    if not webbrowser.open(page):
        note(f"hearth: no browser was found; the dashboard is at {page}")


class _RequestLines(CallListener):
    """Prints one line for each call that has ended. An extension of the node."""

    name = "hearth dev"

    def setup(self, server: Server) -> None:
        """Watch every call of the node."""
        server.add_call_listener(self)

    async def after_call(self, call: Call) -> None:
        """Print the line of a call."""
        with contextlib.suppress(OSError):  # nobody reads stderr: no reason to fail the call
            note(request_line(call))


def request_line(call: Call) -> str:
    """Return method, path, status, time and memory of a call that has ended, and its error."""
    words = [call.method, urlsplit(call.url).path or call.path, str(call.response_status or call.status)]
    if call.started_at != ZERO:
        words.append(short_time((call.completed_at - call.started_at).total_seconds()))
    if memory := max((stat.metrics.get("mem_usage", 0) for stat in call.stats), default=0):
        words.append(f"{memory / _MIB:.0f} MiB")
    error = f": {call.error}" if call.error else ""
    return f"{' '.join(words)}{error}"


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
        opens_dashboard: bool,
    ) -> None:
        self._folder = folder
        self._driver = driver
        self._wanted = wanted
        self._debugger = debugger
        self._secrets = secrets
        self._follow_outside = follow_outside
        self._opens_dashboard = opens_dashboard
        self._outside: set[Path] = set()
        limits = LIMITS if debugger is None else debugger.limits
        self._options = nodes.Options(limits=limits, extensions=[_RequestLines()])
        self._url: asyncio.Future[str] | None = None
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._unwatch = asyncio.Event()
        self._built: dict[Path, bytes] | None = None

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
                watching.cancel()  # a build that is under way is for nobody

    def _announce(self, node: nodes.Node, listeners: Sequence[nodes.Listener]) -> None:
        assert self._url is not None
        self._url.set_result(listeners[0].url)
        if self._opens_dashboard:  # some browsers return when their window is closed: nothing waits for this thread
            threading.Thread(target=_open_dashboard, args=(listeners[0].url,), daemon=True).start()

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
        found, outside = await asyncio.to_thread(self._look)
        if outside != self._outside:
            self._outside = outside
            self._unwatch.set()
        before, self._built = self._built, found
        if before is not None and before != found:
            self._print_changed(before, found)
        return before != found

    def _print_changed(self, before: dict[Path, bytes], found: dict[Path, bytes]) -> None:
        """Name the file that causes a build."""
        changed = [path for path in sorted({*before, *found}) if before.get(path) != found.get(path)]
        files = [path for path in changed if not (self._folder / path).is_dir()] or changed
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        note(f"changed: {os.fsencode(files[0]).decode('utf-8', 'backslashreplace')}{more}; building again")

    def _look(self) -> tuple[dict[Path, bytes], set[Path]]:
        """Return digests of what a build takes, and what links outside lead to. Blocks."""
        try:
            found = sources.scan(self._folder, follow_outside=self._follow_outside)
            return found.digests(), found.outside(self._folder)
        except ProjectError as exc:  # the build reports it
            return {Path(): str(exc).encode()}, self._outside

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
