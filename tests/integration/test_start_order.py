"""A start that cannot succeed changes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support import fn_databases

from hearth import settings
from hearth.models.errors import StartUpError
from hearth.nodes import open_node

BOLT = b"\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\xed\xda\x0c\xed\x02\x00\x00\x00" + bytes(4072)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {},
            (
                "a Bolt file of Fn cannot be read",
                "let Fn empty it, then point FN_MQ_URL to another file",
            ),
        ),
        ({"mq_url": "redis://127.0.0.1:1/"}, ("FN_MQ_URL: ",)),
        ({"mq_url": "none://x"}, ("FN_MQ_URL: ", "mq type not supported none")),
        ({"mq_url": "memory://", "logstore_url": "none://x"}, ("FN_LOGSTORE_URL: ",)),
        ({"mq_url": "memory://", "extensions": "nobody"}, ("FN_EXTENSIONS: ",)),
        ({"mq_url": "memory://", "driver": "docker", "docker_host": "tcp://127.0.0.1:1"}, ("DOCKER_HOST: ",)),
        ({"mq_url": "memory://", "max_total_memory": 1}, ("FN_MAX_TOTAL_MEMORY",)),
        ({"mq_url": "memory://", "api_cors": "localhost"}, ("FN_API_CORS",)),
    ],
)
async def test_a_database_of_fns_is_not_migrated_if_the_node_cannot_start(
    tmp_path: Path, given: dict[str, str], says: tuple[str, ...]
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/fn.db")
    await fn_databases.make(engine, 7)
    await engine.dispose()
    (tmp_path / "fn.mq").write_bytes(BOLT)
    before = (tmp_path / "fn.db").read_bytes()
    with pytest.raises(StartUpError) as refused:
        async with open_node(
            settings.load(**{"data_dir": tmp_path, "driver": "process", "db_wait_s": 0, **given}), 8080
        ):
            pass
    for part in says:
        assert part in str(refused.value)
    assert "FN_DB_URL" not in str(refused.value)
    assert (tmp_path / "fn.db").read_bytes() == before
    assert (tmp_path / "fn.mq").read_bytes() == BOLT
    with sqlite3.connect(tmp_path / "fn.db") as database:
        assert database.execute("SELECT count(*) FROM apps").fetchone() == (3,)
    database.close()
