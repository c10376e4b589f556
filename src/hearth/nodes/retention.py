"""Remove old calls, logs and unused builds, periodically and by ``hearth prune``."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

from hearth.aio.clock import Clock
from hearth.drivers.local import bundle, stored
from hearth.images.collect import Collected, collect, note_use
from hearth.models.errors import StoreUnavailable
from hearth.models.image import pinned
from hearth.queues.base import Queue
from hearth.settings import Settings
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import AppFilter, RouteFilter
from hearth.stores.fns.base import FnFilter
from hearth.stores.logs.base import LogStore
from hearth.stores.retention import Limits, Retention
from hearth.telemetry.logs import get_logger

#: Seconds for which a build stays after it was last needed, however many bytes there are.
_SETTLED_S: Final = 2 * 3600.0

_log = get_logger(__name__)


def retention(
    settings: Settings, datastore: Datastore, queue: Queue | None, logs: LogStore | None, clock: Clock
) -> Retention:
    """Return what sweeps the stores of a node, as its settings say; without a queue, no builds."""
    sweeps_logs = logs is None or settings.sweep_logstore
    limits = Limits(
        calls_s=settings.keep_calls,
        calls=settings.keep_calls_count,
        audit_s=settings.keep_audit,
        dead_letters_s=settings.keep_dead_letters,
        logs_s=settings.keep_logs if sweeps_logs else None,
        logs_bytes=settings.keep_logs_bytes if sweeps_logs else None,
    )
    if queue is None or (settings.keep_bundles is None and settings.keep_bundles_bytes is None):
        return Retention(datastore, clock, limits, logs=logs if sweeps_logs else None)
    builds = Builds(settings, datastore, queue, clock)
    return Retention(datastore, clock, limits, logs=logs if sweeps_logs else None, also=builds.sweep)


class Builds:
    """The builds of a data folder, for the process driver.

    A build is needed by routes and by accepted async calls. Besides, calls that are about to start may run a route as
    it was a moment ago, and runners one of an hour ago. So each look notes the builds that are needed, and a build goes
    no earlier than two hours after it was last noted; the first look of a node notes, and removes nothing.
    """

    def __init__(self, settings: Settings, datastore: Datastore, queue: Queue, clock: Clock) -> None:
        self._settings = settings
        self._datastore = datastore
        self._queue = queue
        self._clock = clock
        self._has_looked = False

    async def sweep(self) -> None:
        """Remove builds, unless this is the first look.

        Raises:
            StoreUnavailable: What is needed cannot be found out; nothing is removed.
        """
        if self._has_looked:
            if removed := await self.prune():
                _log.info("builds that nothing needs removed", builds=len(removed))
            collected = await self.collect()
            if collected.blobs or collected.layers:
                _log.info(
                    "images that nothing needs removed",
                    images=len(collected.names),
                    layers=len(collected.layers),
                    bytes=collected.bytes,
                )
        else:
            await asyncio.to_thread(self._note_use, await self._needed())
            self._has_looked = True

    def _note_use(self, used: set[str]) -> None:
        bundles = self._settings.bundles
        bundle.note_use(bundles, used)
        note_use(stored.image_store(bundles), stored.digests(bundles, used))

    async def prune(self, *, dry_run: bool = False) -> list[Path]:
        """Remove the builds that the settings do not keep; return their folders.

        Raises:
            StoreUnavailable: What is needed cannot be found out; nothing is removed.
        """
        wanted = self._settings
        if (wanted.keep_bundles is None and wanted.keep_bundles_bytes is None) or not wanted.bundles.is_dir():
            return []
        used = await self._needed()
        now = self._clock.now().timestamp()

        def work() -> list[Path]:
            if not dry_run:
                self._note_use(used)
            return bundle.prune(
                wanted.bundles,
                used,
                before=0.0 if wanted.keep_bundles is None else now - wanted.keep_bundles,
                most_bytes=wanted.keep_bundles_bytes,
                settled=now - _SETTLED_S,
                dry_run=dry_run,
            )

        return await asyncio.to_thread(work)

    async def collect(self, removed: Collection[Path] = (), *, dry_run: bool = False) -> Collected:
        """Remove the images that no remaining build and no function needs; return what it was.

        Args:
            removed: Builds that :meth:`prune` would remove, for a look.
            dry_run: Only look.

        Raises:
            StoreUnavailable: What is needed cannot be found out; nothing is removed.
            ImageStoreError: The store cannot be read or changed.
        """
        wanted, now = self._settings, self._clock.now().timestamp()
        if wanted.keep_bundles is None and wanted.keep_bundles_bytes is None:
            return Collected()
        used = await self._needed()
        age = _SETTLED_S if wanted.keep_bundles_bytes is not None else wanted.keep_bundles or _SETTLED_S

        def work() -> Collected:
            return collect(
                stored.image_store(wanted.bundles),
                stored.digests(wanted.bundles, used, removed),
                before=now - age,
                layers=wanted.bundles / bundle.LAYERS,
                dry_run=dry_run,
            )

        return await asyncio.to_thread(work)

    async def _needed(self) -> set[str]:
        """Return the images of calls, then of versions and functions: what is accepted meanwhile has one of these."""
        images = await self._queue.images()
        if images is None:
            raise StoreUnavailable("the queue does not say which builds its calls need")
        images |= await self._datastore.get_version_images()
        for app in await self._datastore.get_apps(AppFilter()):
            routes = await self._datastore.get_routes(app.name, RouteFilter())
            fns = await self._datastore.get_fns(FnFilter(app_id=app.id))
            images |= {pinned(route.image, route.digest) for route in routes}
            images |= {pinned(fn.image, fn.digest) for fn in fns}
        return images
