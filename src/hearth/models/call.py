"""A call: the record a client can read. It holds no socket and no task."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from hearth.models.route import DEFAULT, SYNC, HeaderMap
from hearth.models.times import ZERO

QUEUED: Final = "queued"
RUNNING: Final = "running"
SUCCESS: Final = "success"
ERROR: Final = "error"
TIMEOUT: Final = "timeout"

#: Statuses that never change again.
FINAL: Final = frozenset({SUCCESS, ERROR, TIMEOUT})

#: The nine metrics of a stats sample, in the order they are documented.
STAT_NAMES: Final = (
    "net_rx",
    "net_tx",
    "mem_limit",
    "mem_usage",
    "disk_read",
    "disk_write",
    "cpu_user",
    "cpu_total",
    "cpu_kernel",
)


class Stat(msgspec.Struct, frozen=True):
    """One sample of a container's resource use; values are unsigned integers."""

    timestamp: dt.datetime
    metrics: dict[str, int]


class Call(msgspec.Struct, kw_only=True):
    """One invocation: what was asked, and how it went.

    The stored fields (id, status, app_name, path, times, stats, error) outlive the call; the others travel with an
    accepted async call through the queue. ``memory`` is MiB, ``timeout``, ``idle_timeout`` and ``delay`` are seconds.
    """

    id: str
    app_name: str
    path: str
    status: str = ""
    image: str = ""
    delay: int = 0
    type: str = SYNC
    format: str = DEFAULT
    payload: bytes = b""
    url: str = ""
    method: str = ""
    priority: int = 0
    timeout: int = 0
    idle_timeout: int = 0
    memory: int = 0
    cpu_milli: int = 0
    config: dict[str, str] = msgspec.field(default_factory=dict)
    headers: HeaderMap = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    started_at: dt.datetime = ZERO
    completed_at: dt.datetime = ZERO
    stats: list[Stat] = msgspec.field(default_factory=list)
    error: str = ""
