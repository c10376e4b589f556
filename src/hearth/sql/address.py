"""Parse the addresses of databases in Fn's forms (storage specification 2).

They are not quite URLs: MySQL's is a Go DSN with ``tcp(host:port)``, and passwords may hold every character. So each
dialect has a parser of its own. Logs and errors show :attr:`Address.shown`, which never holds the password.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

import sqlalchemy as sa

from hearth.models.errors import StartUpError

#: Seconds that one attempt to connect may take.
CONNECT_TIMEOUT_S: Final = 5
#: Seconds that a writer on SQLite waits for another process's transaction.
BUSY_TIMEOUT_S: Final = 10
_BAD: Final = "bad DB URL"
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]()/]*)(?::(?P<port>\d{1,5}))?", re.ASCII)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """The address of a database.

    Attributes:
        url: For SQLAlchemy.
        connect_args: For the driver.
        shown: The address as it may be logged.
        path: The file, if it is one.
    """

    url: sa.URL = dataclasses.field(repr=False)
    connect_args: dict[str, Any] = dataclasses.field(repr=False)
    shown: str
    path: Path | None = None

    @property
    def dialect(self) -> str:
        """Return ``sqlite``, ``postgresql`` or ``mysql``."""
        return self.url.get_backend_name()


def parse(text: str, variable: str = "FN_DB_URL") -> Address:
    """Parse an address.

    Args:
        text: ``sqlite3:///file``, ``postgres://user:pass@host:port/db?sslmode=disable`` or
            ``mysql://user:pass@tcp(host:port)/db``.
        variable: The setting that it comes from; errors name it.

    Raises:
        StartUpError: It has none of these forms.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise StartUpError(f"{variable}: {_BAD}: it has no scheme; use e.g. sqlite3:///absolute/path/to/fn.db")
    parser = _PARSERS.get(scheme)
    if parser is None:
        raise StartUpError(f"{variable}: db type not supported {scheme}")
    try:
        return parser(rest)
    except ValueError as exc:
        raise StartUpError(f"{variable}: {_BAD}: {exc}") from None  # the cause would show the password


def _sqlite(rest: str) -> Address:
    name, mark, query = rest.rpartition("?")
    if not mark or "/" in query:  # part of a folder's name
        name, query = rest, ""
    if not name:
        raise ValueError("it names no file; use sqlite3:///absolute/path/to/fn.db")
    path = Path(name).absolute()
    arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S}
    database = str(path)
    if query:
        database, arguments["uri"] = f"file:{quote(os.fsencode(path))}?{query}", True
    url = sa.URL.create("sqlite+aiosqlite", database=database)
    return Address(url, arguments, f"sqlite3://{path}", path)


def _postgres(rest: str) -> Address:
    user, password, where = _credentials(rest)
    place, _, query = where.partition("?")
    server, _, database = place.partition("/")
    host, port = _host_and_port(server, 5432)
    options = dict(parse_qsl(query, keep_blank_values=True))
    mode = options.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(_SSL_MODES)}")
    host = options.get("host", host)  # libpq's way to name the folder of a socket
    user, database = unquote(user), unquote(database)
    arguments: dict[str, Any] = {"ssl": mode, "timeout": CONNECT_TIMEOUT_S}
    if "application_name" in options:
        arguments["server_settings"] = {"application_name": options["application_name"]}
    url = sa.URL.create(
        "postgresql+asyncpg", user or None, unquote(password) or None, None, None, database or user or None
    )
    arguments |= {"host": host or "localhost", "port": port}
    return Address(url, arguments, f"postgres://{user}@{host}:{port}/{database}")


def _mysql(rest: str) -> Address:
    user, password, where = _credentials(rest)  # as in Go's driver, nothing is encoded
    server, _, query = where.partition("?")
    place, slash, database = server.rpartition("/")
    if not slash:
        raise ValueError("it names no database; use mysql://user:pass@tcp(host:3306)/db")
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "charset": "utf8mb4"}
    # The mode of the server might cut texts, or read a backslash in another way than the driver.
    arguments["sql_mode"] = "'TRADITIONAL'"
    if socket := re.fullmatch(r"unix\((.+)\)", place):
        arguments["unix_socket"] = socket[1]
    else:
        net = re.fullmatch(r"tcp\((.*)\)", place)
        arguments["host"], arguments["port"] = _host_and_port(net[1] if net else place, 3306)
        arguments["host"] = arguments["host"] or "127.0.0.1"
    tls = dict(parse_qsl(query, keep_blank_values=True)).get("tls", "false")
    if tls not in ("true", "false"):
        raise ValueError("tls is true or false")
    if tls == "true":
        arguments["ssl"] = True
    url = sa.URL.create("mysql+asyncmy", user or None, password or None, database=database)
    return Address(url, arguments, f"mysql://{user}@{place}/{database}")


def _credentials(rest: str) -> tuple[str, str, str]:
    """Split off user and password at the last ``@``, because the password may hold one."""
    who, _, where = rest.rpartition("@")
    user, _, password = who.partition(":")
    return user, password, where


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("its host is not of the form host:port")
    port = int(found["port"] or default)
    if not 0 < port < 65536:
        raise ValueError("its port is out of range")
    return found["host"].strip("[]"), port


_PARSERS: Final[dict[str, Callable[[str], Address]]] = {
    "sqlite": _sqlite,
    "sqlite3": _sqlite,
    "postgres": _postgres,
    "postgresql": _postgres,
    "mysql": _mysql,
}
