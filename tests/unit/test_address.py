"""Addresses of databases, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.models.errors import StartUpError
from hearth.sql.address import parse

HARD = "p@ss:w/o#r%d?"


@pytest.mark.parametrize(
    ("text", "dialect", "user", "password", "host", "port", "database"),
    [
        ("postgres://fn:pw@db:5433/fn?sslmode=disable", "postgresql", "fn", "pw", "db", 5433, "fn"),
        ("postgresql://fn@db/fn", "postgresql", "fn", None, "db", 5432, "fn"),
        ("postgres://fn:p%40ss%3A%2F%23%25@db/fn", "postgresql", "fn", "p@ss:/#%", "db", 5432, "fn"),
        ("postgres://fn:p@ss:w/o#r%d@db/fn", "postgresql", "fn", "p@ss:w/o#r%d", "db", 5432, "fn"),
        ("postgres://fn:pw@[::1]:5432/fn", "postgresql", "fn", "pw", "::1", 5432, "fn"),
        ("postgres://fn:pw@/fn?host=/run/pg", "postgresql", "fn", "pw", "/run/pg", 5432, "fn"),
        ("mysql://root:root@tcp(127.0.0.1:3307)/funcs", "mysql", "root", "root", "127.0.0.1", 3307, "funcs"),
        ("mysql://root@tcp(db)/funcs?charset=utf8", "mysql", "root", None, "db", 3306, "funcs"),
        (f"mysql://root:{HARD}@tcp(db:3306)/funcs", "mysql", "root", HARD, "db", 3306, "funcs"),
        (f"mysql://root:{HARD}@tcp(db:3306)/funcs?loc=US/Pacific", "mysql", "root", HARD, "db", 3306, "funcs"),
        ("mysql://root:pw@db:3306/funcs", "mysql", "root", "pw", "db", 3306, "funcs"),
        ("mysql://root:pw@tcp([::1]:3306)/funcs", "mysql", "root", "pw", "::1", 3306, "funcs"),
    ],
)
def test_an_address_of_a_server_is_read(
    text: str, dialect: str, user: str, password: str | None, host: str, port: int, database: str
) -> None:
    found = parse(text)
    assert (found.dialect, found.url.username, found.url.password) == (dialect, user, password)
    assert (found.connect_args["host"], found.connect_args["port"], found.url.database) == (host, port, database)
    assert password is None or password == user or password not in found.shown + repr(found)


def test_a_socket_is_an_address_too() -> None:
    found = parse("mysql://root:pw@unix(/run/mysqld.sock)/funcs")
    assert (found.connect_args["unix_socket"], found.url.database) == ("/run/mysqld.sock", "funcs")


def test_a_file_is_absolute_or_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("sqlite3:///app/data/fn.db").path == Path("/app/data/fn.db")
    assert parse("sqlite3://a/b.db").path == tmp_path / "a/b.db"
    assert parse("sqlite3:///app/fn.db?mode=ro").url.database == "file:/app/fn.db?mode=ro"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nosql://fn:geheim@x", "db type not supported nosql"),
        ("geheim", "bad DB URL"),
        ("sqlite3://", "bad DB URL"),
        ("postgres://fn:geheim@db:port/fn", "bad DB URL"),
        ("postgres://fn:geheim@db:99999/fn", "bad DB URL"),
        ("postgres://fn:geheim@db/fn?sslmode=maybe", "bad DB URL"),
        ("mysql://fn:geheim@tcp(db:3306)", "bad DB URL"),
        ("mysql://fn:geheim@tcp(db:port)/fn", "bad DB URL"),
        ("mysql://fn:geheim@udp(db:1)/fn", "bad DB URL"),
    ],
)
def test_an_address_of_no_use_is_refused_and_not_shown(text: str, error: str) -> None:
    with pytest.raises(StartUpError, match=error) as refused:
        parse(text)
    assert "geheim" not in str(refused.value)
    assert "FN_DB_URL" in str(refused.value)
    assert refused.value.__cause__ is None
