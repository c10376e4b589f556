"""Column types that mean the same on every database: names compare by bytes, texts and logs are never cut."""

from __future__ import annotations

import functools
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

#: For each table on MySQL, where the server's default would compare names without case and refuse some characters.
#: DYNAMIC admits keys of 3072 bytes: three names.
TABLE_OPTIONS: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}

#: Decodes the texts of SQLite, which may hold bytes that are no UTF-8. They must not fail a list.
TEXTS: Final = functools.partial(str, encoding="utf-8", errors="replace")


def name(length: int = 256) -> sa.types.TypeEngine[str]:
    """Return the type of a short text that is compared and sorted by its bytes."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def text() -> sa.types.TypeEngine[str]:
    """Return the type of a long text. MySQL's own ``text`` ends at 64 KiB."""
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def blob() -> sa.types.TypeEngine[bytes]:
    """Return the type of bytes, up to 16 MiB on MySQL."""
    return sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
