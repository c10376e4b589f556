"""Opens the log store that a URL names."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from hearth.models.errors import StartUpError
from hearth.registry import Registry, UnknownScheme
from hearth.stores.logs.base import LogStore
from hearth.telemetry.node import Telemetry

BACKENDS: Final = Registry[Awaitable[LogStore]](
    "hearth.stores.logs",
    {
        "s3": "hearth.stores.logs.s3:open_s3",
        **dict.fromkeys(("sqlite", "sqlite3", "postgres", "postgresql", "mysql"), "hearth.stores.logs.sql:open_sql"),
    },
)


async def open_logstore(url: str, *, wait_s: float, telemetry: Telemetry | None = None) -> LogStore:
    """Open the log store of an ``s3://`` address or of a database's address.

    Args:
        url: The address.
        wait_s: How long to wait for a database that is not ready.
        telemetry: Counts and times what the store does.

    Raises:
        StartUpError: The address is invalid, or the backend is not available.
        StoreUnavailable: A database cannot be opened.
    """
    if "://" not in url:
        raise StartUpError("FN_LOGSTORE_URL: bad log store URL: it has no scheme")
    try:
        opening = BACKENDS.open(url, wait_s=wait_s, telemetry=telemetry or Telemetry())
    except UnknownScheme as exc:
        raise StartUpError(f"FN_LOGSTORE_URL: db type not supported {exc.args[0]}") from exc
    return await opening
