"""A backup of a node under load, restored elsewhere; and what is refused."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli, Done
from tests.support.node import HEARTH, RunningNode, build_multi, running_node
from tests.support.waiting import until

SECRET = "of the app"
#: A restored call that a node had taken is taken again when its lease is over.
LEASES = {"FN_MQ_VISIBILITY_S": "5"}
TELL = {"run": 'orders["echo"] = os.environ["KEY"]'}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with a function that gets a secret, a dead letter, an image, and a call that is to run much later."""
    folder = tmp_path_factory.mktemp("node")
    image = build_multi(folder, folder / "source")
    with running_node("process", folder, image, **LEASES) as running:
        running.http.post("/v1/apps", json={"app": {"name": "e2e"}})
        running.http.put("/v1/apps/e2e/secrets/KEY", json={"value": SECRET}).raise_for_status()
        running.route("sync", "json", secrets=["KEY"])
        running.route("later", "json", type="async", secrets=["KEY"])
        running.route("dies", "http", type="async", dead_letters=True)
        assert running.call("/r/e2e/sync", **TELL).text == SECRET
        assert running.ended(running.http.post("/r/e2e/dies", json={"exit": 3}))["dead"] is True
        running.http.post("/r/e2e/later", json=TELL, headers={"Fn-Delay": "3600"})
        yield running


def hearth(data: Path, *arguments: str | Path, **environment: str) -> Done:
    """Run the command with a data folder, as a process: SQLite's locks belong to processes."""
    return Cli("", data.parent, FN_DATA_DIR=str(data), FN_PORT="0", **environment).run(*arguments)


@contextlib.contextmanager
def load(node: RunningNode) -> Iterator[list[httpx.Response]]:
    """Sync and async calls all the time; yields the answers so far."""
    answers: list[httpx.Response] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            answers.extend(node.call(path, **TELL) for path in ("/r/e2e/sync", "/r/e2e/later"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def has_more(answers: list[httpx.Response], than: int) -> bool:
    return len(answers) > than


def rows(path: Path, query: str) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {str(one) for (one,) in database.execute(query)}


def test_a_backup_under_load_restored_elsewhere_serves_the_same(node: RunningNode, tmp_path: Path) -> None:
    with load(node) as answers:
        assert until(lambda: len(answers) > 20)
        for number in range(8):
            answers_before = len(answers)
            done = hearth(node.data, "backup", tmp_path / f"{number}.tar")
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            assert until(partial(has_more, answers, answers_before + 10))
    early = answers[:20]
    assert {answer.status_code for answer in answers} == {200, 202}
    for number in range(8):
        done = hearth(tmp_path / str(number), "restore", tmp_path / f"{number}.tar")
        assert done.returncode == 0, done.stderr
        unfinished = "SELECT id FROM calls WHERE status IN ('queued', 'running')"
        waiting = rows(tmp_path / str(number) / "fn.db", unfinished)
        assert waiting
        assert waiting <= rows(tmp_path / str(number) / "fn.mq", "SELECT call_id FROM messages")
    data = tmp_path / "0"
    assert {path.stat().st_mode & 0o077 for path in (data, *data.rglob("*"), tmp_path / "0.tar")} == {0}
    assert not (data / "node-id").exists()
    with running_node("process", data, node.image, **LEASES) as restored:
        assert (data / "node-id").read_text() != (node.data / "node-id").read_text()
        assert restored.call("/r/e2e/sync", **TELL).text == SECRET
        for answer in early:
            assert restored.record(answer)["status"] in ("success", "queued", "running")
        assert until(lambda: len(statuses(restored)) > 20 and "running" not in statuses(restored))
        letters = restored.http.get("/v1/apps/e2e/dead-letters").json()["calls"]
        payload = restored.http.get(f"/v1/apps/e2e/dead-letters/{letters[0]['id']}/payload").content
        assert (len(letters), payload) == (1, b'{"exit":3}')
        queued = "SELECT count(*) FROM calls WHERE status = 'queued'"
        assert until(lambda: rows(data / "fn.db", queued) == {"1"}), "the one that is delayed"


def statuses(node: RunningNode) -> list[str]:
    return [call["status"] for call in node.http.get("/v1/apps/e2e/calls?per_page=100").json()["calls"]]


def test_keys_may_be_left_out_and_come_back_apart(node: RunningNode, tmp_path: Path) -> None:
    done = hearth(node.data, "backup", "--without-keys", tmp_path / "b.tar")
    assert (done.returncode, f"keep {node.data / 'secret-key'} apart" in done.stderr) == (0, True)
    key = (node.data / "secret-key").read_text().strip()
    assert key.encode() not in (tmp_path / "b.tar").read_bytes()
    data = tmp_path / "data"
    done = hearth(data, "restore", tmp_path / "b.tar")
    assert (done.returncode, f"put it back as {data / 'secret-key'}" in done.stderr) == (0, True)
    assert not {"secret-key", "admin-token"} & {path.name for path in data.iterdir()}
    (data / "secret-key").touch(0o600)
    (data / "secret-key").write_text(key)
    with running_node("process", data, node.image) as restored:
        assert restored.call("/r/e2e/sync", **TELL).text == SECRET


def test_a_backup_is_restored_into_an_empty_folder_only(node: RunningNode, tmp_path: Path) -> None:
    hearth(node.data, "backup", tmp_path / "b.tar")
    done = hearth(node.data, "restore", tmp_path / "b.tar")
    assert (done.returncode, "in use by process" in done.stderr) == (1, True)
    data = tmp_path / "data"
    data.mkdir()
    (data / "notes").write_text("mine")
    done = hearth(data, "restore", tmp_path / "b.tar")
    assert (done.returncode, "is not empty (notes)" in done.stderr) == (1, True)
    assert {path.name for path in data.iterdir()} == {"notes", "hearth.lock"}
    elsewhere = tmp_path / "other.db"
    elsewhere.touch()
    done = hearth(tmp_path / "new", "restore", tmp_path / "b.tar", FN_DB_URL=f"sqlite3://{elsewhere}")
    assert (done.returncode, f"{elsewhere}: exists" in done.stderr) == (1, True)


def test_of_a_damaged_backup_nothing_is_restored(node: RunningNode, tmp_path: Path) -> None:
    whole = tmp_path / "b.tar"
    hearth(node.data, "backup", whole)
    content = whole.read_bytes()
    data = tmp_path / "data"
    for name, changed in (
        ("cut", content[: len(content) // 2]),
        ("changed", content.replace(b"SQLite format 3", b"sqlite format 3", 1)),
        ("empty", b""),
    ):
        (tmp_path / name).write_bytes(changed)
        done = hearth(data, "restore", tmp_path / name)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"{tmp_path / name}: is " in done.stderr
        assert {path.name for path in data.iterdir()} == {"hearth.lock"}
    assert hearth(data, "restore", whole).returncode == 0, "the folder is still empty"


def test_stores_elsewhere_are_named_and_a_wrong_folder_is_an_error(node: RunningNode, tmp_path: Path) -> None:
    elsewhere = {
        "FN_DB_URL": "postgres://hearth:pass@db/hearth",
        "FN_MQ_URL": "redis://:pass@redis:6379/",
        "FN_LOGSTORE_URL": "s3://key:pass@s3:9000/us-east-1/logs",
    }
    done = hearth(node.data, "backup", tmp_path / "b.tar", **elsewhere)
    assert done.returncode == 0
    assert [line.partition(":")[2].partition(" is ")[0].partition(" are ")[0] for line in done.stderr.splitlines()] == [
        " the database",
        " the queue",
        " logs of calls",
    ]
    assert "pg_dump" in done.stderr
    assert "pass@" not in done.stderr
    done = hearth(tmp_path / "data", "restore", tmp_path / "b.tar", **elsewhere)
    assert done.returncode == 0, done.stderr
    assert {"images", "secret-key", "admin-token"} <= {path.name for path in (tmp_path / "data").iterdir()}
    done = hearth(tmp_path / "none", "backup", tmp_path / "c.tar")
    assert (done.returncode, "no such folder" in done.stderr) == (1, True)
    assert not (tmp_path / "c.tar").exists()
    done = hearth(node.data, "backup", tmp_path / "c.tar", FN_NODE_TYPE="runner")
    assert (done.returncode, "a runner keeps nothing" in done.stderr) == (1, True)


@pytest.mark.parametrize("page", ["backup", "retention"])
def test_the_commands_of_a_page_work_as_they_are_written(node: RunningNode, tmp_path: Path, page: str) -> None:
    """Except the start of a node and the crontab, which would go on for ever."""
    text = (Path(__file__).parents[2] / "docs" / "howto" / f"{page}.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if re.search(r"^(FN_\w+=\S+ )*hearth ", line)]
    typed = "\n".join(line for line in lines if not line.endswith("hearth start"))
    assert typed
    typed = typed.replace("/backups", str(tmp_path)).replace("/srv/hearth", str(tmp_path / "new"))
    environment = {**os.environ, "PATH": f"{HEARTH.parent}:{os.environ['PATH']}", "FN_DATA_DIR": str(node.data)}
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", typed], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= len(typed.splitlines())
