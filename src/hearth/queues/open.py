"""Opens the queue that a URL names."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from hearth.aio.clock import Clock
from hearth.models.errors import StartUpError
from hearth.queues.base import VISIBILITY_TIMEOUT_S, Queue
from hearth.registry import Registry, UnknownScheme

BACKENDS: Final = Registry[Awaitable[Queue]](
    "hearth.queues",
    {
        "bolt": "hearth.queues.sqlite:open_bolt",
        "memory": "hearth.queues.sqlite:open_memory",
        "redis": "hearth.queues.redis:open_redis",
        "rediss": "hearth.queues.redis:open_redis",
    },
)


async def open_queue(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """Open the queue at ``bolt:///absolute/path``, ``memory://`` or ``redis://[user:pass@]host:port/[prefix]``.

    Raises:
        StartUpError: The URL is invalid, or the backend is not available.
    """
    if "://" not in url:
        raise StartUpError("bad MQ URL: FN_MQ_URL begins with bolt://, redis:// or memory://")
    try:
        opening = BACKENDS.open(url, clock=clock, visibility_s=visibility_s)
    except UnknownScheme as exc:
        raise StartUpError(f"mq type not supported {exc.args[0]}") from exc
    return await opening
