"""Databases as an Fn server of each schema version leaves them: its statements, its rows, its oddities."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

VERSIONS = range(8)
_APPS = ["name varchar(256) NOT NULL PRIMARY KEY", "config text NOT NULL"]
_ROUTES = [
    "app_name varchar(256) NOT NULL",
    "path varchar(256) NOT NULL",
    "image varchar(256) NOT NULL",
    "format varchar(16) NOT NULL",
    "memory int NOT NULL",
    "timeout int NOT NULL",
    "idle_timeout int NOT NULL",
    "type varchar(16) NOT NULL",
    "headers text NOT NULL",
    "config text NOT NULL",
    "PRIMARY KEY (app_name, path)",
]
_CALLS = [
    "created_at varchar(256) NOT NULL",
    "started_at varchar(256) NOT NULL",
    "completed_at varchar(256) NOT NULL",
    "status varchar(256) NOT NULL",
    "id varchar(256) NOT NULL",
    "app_name varchar(256) NOT NULL",
    "path varchar(256) NOT NULL",
    "PRIMARY KEY (id)",
]
_LOGS = ["id varchar(256) NOT NULL PRIMARY KEY", "app_name varchar(256) NOT NULL", "log text NOT NULL"]
_MIGRATIONS = [
    "ALTER TABLE routes ADD created_at text",
    "ALTER TABLE calls ADD stats text",
    "ALTER TABLE calls ADD error text",
    "ALTER TABLE routes ADD updated_at varchar(256)",
    "ALTER TABLE apps ADD created_at varchar(256)",
    "ALTER TABLE apps ADD updated_at varchar(256)",
    "ALTER TABLE routes ADD cpus int",
]
#: Rows that were there before any migration; later columns are NULL in them.
_ROWS = [
    "INSERT INTO apps (name, config) VALUES ('app', '{\"A\":\"1\"}'), ('App', ''), ('b', '')",
    "INSERT INTO routes (app_name, path, image, format, memory, timeout, idle_timeout, type, headers, config) VALUES"
    " ('app', '/a', 'img', 'http', 128, 30, 30, 'sync', '{\"X\":[\"1\",\"2\"]}', ''),"
    " ('app', '/b', 'img', 'default', 256, 60, 45, 'async', '', '{\"K\":\"v\"}')",
    "INSERT INTO calls (created_at, started_at, completed_at, status, id, app_name, path) VALUES"
    " ('2018-03-01T12:30:00.250+01:00', '2018-03-01T12:30:01.000+01:00', '2018-03-01T12:30:02.000+01:00',"
    " 'success', '01', 'app', '/a'),"
    " ('2018-03-01T12:00:00.500Z', '2018-03-01T12:00:01.000Z', '2018-03-01T12:00:02.000Z', 'error', '02', 'app', '/b')",
    "INSERT INTO logs (id, app_name, log) VALUES ('01', 'app', 'grüß dich'), ('02', 'app', '')",
]
#: ... and one written by the version itself.
_NEW_ROWS = {
    3: "INSERT INTO calls (created_at, started_at, completed_at, status, id, app_name, path, stats, error) VALUES"
    " ('2018-05-01T10:00:00.000-07:00', '2018-05-01T10:00:00.000-07:00', '2018-05-01T10:00:01.000-07:00', 'error',"
    " '03', 'app', '/a', '[{\"timestamp\":\"2018-05-01T17:00:00.000Z\",\"metrics\":{\"net_rx\":7}}]', 'ya dun goofed')",
    7: "UPDATE routes SET cpus = 100, created_at = '2018-06-01T10:00:00.000+02:00' WHERE path = '/b'",
}


async def make(engine: AsyncEngine, version: int, *, note: bool = True) -> None:
    """Fill an empty database as Fn of a version would have.

    Args:
        engine: The database.
        version: Of Fn's schema.
        note: Whether ``schema_migrations`` says so; without it, Fn takes a database to be at 0.
    """
    statements = [
        f"CREATE TABLE {name} ({', '.join(columns)})"
        for name, columns in (("apps", _APPS), ("routes", _ROUTES), ("calls", _CALLS), ("logs", _LOGS))
    ]
    statements += _ROWS
    for number, migration in enumerate(_MIGRATIONS[:version], start=1):
        statements.append(migration)
        if number in _NEW_ROWS:
            statements.append(_NEW_ROWS[number])
    if note:
        statements += note_of(engine, version)
    async with engine.begin() as connection:
        if engine.dialect.name == "mysql":  # what servers of that time made of a database, and some still do
            await connection.exec_driver_sql("ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_general_cs")
        for statement in statements:
            await connection.exec_driver_sql(statement)


def note_of(engine: AsyncEngine, version: int, *, dirty: bool = False) -> list[str]:
    """The statements that note a version."""
    made = "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
    more = []
    if engine.dialect.name == "sqlite":
        made = "CREATE TABLE schema_migrations (version uint64, dirty bool)"
        more = ["CREATE UNIQUE INDEX version_unique ON schema_migrations (version)"]
    return [made, *more, f"INSERT INTO schema_migrations (version, dirty) VALUES ({version}, {str(dirty).lower()})"]


_NEWEST = [
    "CREATE TABLE apps (id varchar(256) NOT NULL PRIMARY KEY, name varchar(256) NOT NULL UNIQUE,"
    " config text NOT NULL, annotations text NOT NULL, syslog_url text, created_at varchar(256),"
    " updated_at varchar(256), shape varchar(256))",
    "CREATE TABLE fns (id varchar(256) NOT NULL PRIMARY KEY, name varchar(256) NOT NULL,"
    " app_id varchar(256) NOT NULL, image varchar(256) NOT NULL, memory int NOT NULL,"
    " timeout int NOT NULL, idle_timeout int NOT NULL, config text NOT NULL, annotations text NOT NULL,"
    " created_at varchar(256), updated_at varchar(256), shape varchar(256), UNIQUE (app_id, name))",
    "CREATE TABLE triggers (id varchar(256) NOT NULL PRIMARY KEY, name varchar(256) NOT NULL,"
    " app_id varchar(256) NOT NULL, fn_id varchar(256) NOT NULL, created_at varchar(256),"
    " updated_at varchar(256), type varchar(256) NOT NULL, source varchar(256) NOT NULL, annotations text NOT NULL,"
    " UNIQUE (app_id, fn_id, name))",
    "INSERT INTO apps VALUES ('01A', 'app', '{\"A\":\"1\"}', '{\"k\":[1,\"x\"]}', 'tcp://logs:514',"
    " '2020-01-01T01:00:00.000+01:00', '2020-01-01T00:00:00.000Z', 'GENERIC_ARM'), ('01B', 'bare', '', '', NULL, NULL,"
    " NULL, NULL)",
    "INSERT INTO fns VALUES ('01F', 'f', '01A', 'img:1', 256, 60, 45, '{\"K\":\"v\"}', '', '2020-01-01T00:00:00.000Z',"
    " '2020-01-01T00:00:00.000Z', 'GENERIC_ARM')",
    "INSERT INTO triggers VALUES ('01T', 't', '01A', '01F', '2020-01-01T00:00:00.000Z', '2020-01-01T00:00:00.000Z',"
    " 'http', '/s', '{\"x\":true}'), ('01U', 'u', '01A', '01F', NULL, NULL, 'http', '/s', '')",
]


async def make_newest(engine: AsyncEngine, version: int = 26) -> None:
    """Fill an empty database as today's Fn would have. Two of its triggers have one source: it allows that."""
    async with engine.begin() as connection:
        for statement in (*_NEWEST, *note_of(engine, version)):
            await connection.exec_driver_sql(statement)
