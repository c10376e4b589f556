"""hearth prune."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.cli.data_lock import data_lock
from hearth.cli.output import say
from hearth.cli.progress import progress
from hearth.images.collect import Collected
from hearth.models.errors import StartUpError
from hearth.nodes.retention import Builds, retention
from hearth.queues.open import open_queue
from hearth.sql import engine
from hearth.sql.address import parse
from hearth.stores.logs.base import LogStore
from hearth.stores.logs.open import open_logstore
from hearth.stores.records.base import Removed
from hearth.stores.sql import open_datastore


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, without removing it.")
    ] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Rewrite the SQLite database without its free space; stop the node first.")
    ] = False,
) -> None:
    """Remove the calls, logs and builds that the settings FN_KEEP_... do not keep.

    Nodes do the same once an hour, and may run meanwhile; then builds are left to the node of the data folder.

    Examples:
        hearth prune --dry-run
        FN_KEEP_CALLS=7d hearth prune
    """
    wanted = settings.load()
    if wanted.node_type == settings.RUNNER:
        raise StartUpError("FN_NODE_TYPE=runner: a runner keeps nothing; run this with the variables of an API node")
    if vacuum and parse(wanted.database).path is None:
        raise StartUpError("--vacuum: only SQLite's file can be rewritten; FN_DB_URL names a server")
    with contextlib.ExitStack() as stack:
        is_stopped = vacuum
        if vacuum:
            stack.enter_context(data_lock(wanted.data))
        elif _limits_builds(wanted) and wanted.data.is_dir():
            with contextlib.suppress(StartUpError):
                stack.enter_context(data_lock(wanted.data))
                is_stopped = True
        with progress("searching" if dry_run else "removing"):
            removed, builds, images = asyncio.run(_prune(wanted, is_stopped=is_stopped, dry_run=dry_run))
        verb = "would remove" if dry_run else "removed"
        say(f"{verb} {removed.calls} calls, {removed.logs} logs of other calls")
        if builds is None:
            say("builds are left to the running node, which alone knows what its queue needs")
        else:
            say(f"{verb} {len(builds)} builds")
            for folder in builds:
                say(f"  {folder}")
            say(f"{verb} {len(images.names)} images, {images.bytes} bytes in {len(images.blobs)} blobs")
            for name in images.names:
                say(f"  {name}")
        if vacuum and not dry_run:
            with progress("rewriting the database"):
                asyncio.run(_vacuum(wanted))


async def _prune(
    wanted: settings.Settings, *, is_stopped: bool, dry_run: bool
) -> tuple[Removed, list[Path] | None, Collected]:
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        datastore = await open_datastore(wanted.database, wait_s=wanted.db_wait_s)
        stack.push_async_callback(datastore.close)
        logs: LogStore | None = None
        if wanted.logstore_url:
            logs = await open_logstore(wanted.logstore_url, wait_s=wanted.db_wait_s)
            stack.push_async_callback(logs.close)
        sweeper = retention(wanted, datastore, None, logs, clock)
        removed = await (sweeper.look() if dry_run else sweeper.sweep())
        if not _limits_builds(wanted) or not wanted.bundles.is_dir():
            return removed, [], Collected()
        if not is_stopped:
            return removed, None, Collected()
        queue = await open_queue(wanted.queue, clock, visibility_s=wanted.visibility_s)
        stack.push_async_callback(queue.close)
        sweep = Builds(wanted, datastore, queue, clock)
        builds = await sweep.prune(dry_run=dry_run)
        return removed, builds, await sweep.collect(builds, dry_run=dry_run)


def _limits_builds(wanted: settings.Settings) -> bool:
    return wanted.keep_bundles is not None or wanted.keep_bundles_bytes is not None


async def _vacuum(wanted: settings.Settings) -> None:
    address = parse(wanted.database)
    assert address.path is not None
    before = address.path.stat().st_size
    opened = await engine.connect(address)
    try:
        await engine.rewrite(opened)
    finally:
        await opened.dispose()
    say(f"{address.path}: {before >> 20} MiB before, {address.path.stat().st_size >> 20} MiB now")
