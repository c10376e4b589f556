"""What only code can give a node; all else is in :class:`~hearth.settings.Settings`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hearth.datastore.base import Datastore
from hearth.drivers.base import Driver
from hearth.logstores.base import LogStore
from hearth.models.route import LIMITS, RouteLimits
from hearth.queues.base import Queue
from hearth.server.extensions import Extension


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Ready-made parts of a node, and what is added to it. Parts are closed by whoever made them.

    Attributes:
        datastore: Instead of what ``FN_DB_URL`` names.
        queue: Instead of what ``FN_MQ_URL`` names.
        logs: Instead of what ``FN_LOGSTORE_URL`` names.
        driver: Opened; instead of what ``FN_DRIVER`` names.
        extensions: Added in this order, before those of ``FN_EXTENSIONS``.
        shutdown_endpoint: Whether ``GET /shutdown`` stops the node.
        limits: The most that a route may ask for.
    """

    datastore: Datastore | None = None
    queue: Queue | None = None
    logs: LogStore | None = None
    driver: Driver | None = None
    extensions: Sequence[Extension | str] = ()
    shutdown_endpoint: bool = False
    limits: RouteLimits = LIMITS
