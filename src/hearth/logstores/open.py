"""Opens the log store that a URL names."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from hearth.logstores.base import LogStore
from hearth.models.errors import StartUpError
from hearth.registry import Registry, UnknownScheme

BACKENDS: Final = Registry[Awaitable[LogStore]](
    "hearth.logstores",
    {
        "s3": "hearth.logstores.s3:open_s3",
        **dict.fromkeys(("sqlite", "sqlite3", "postgres", "postgresql", "mysql"), "hearth.logstores.sql:open_sql"),
    },
)


async def open_logstore(url: str, *, wait_s: float) -> LogStore:
    """The log store of ``s3://`` or of a database's address.

    Args:
        url: The address.
        wait_s: How long to wait for a database that is not ready.

    Raises:
        StartUpError: The address is of no use, or the backend cannot be had.
        StoreUnavailable: A database cannot be opened.
    """
    if "://" not in url:
        raise StartUpError("FN_LOGSTORE_URL: bad log store URL: it has no scheme")
    try:
        opening = BACKENDS.open(url, wait_s=wait_s)
    except UnknownScheme as exc:
        raise StartUpError(f"FN_LOGSTORE_URL: db type not supported {exc.args[0]}") from exc
    return await opening
