"""Whoever has had the whole answer finds the record and the log, also after sudden deaths of the node.

``HEARTH_KILLED_CALLS`` sets how many calls there are; 5000 take minutes.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import sqlite3
import threading
from pathlib import Path

import httpx
from tests.support import servers
from tests.support.databases import folder
from tests.support.node import RunningNode, build_multi, running_node

CALLS = int(os.environ.get("HEARTH_KILLED_CALLS", "150"))
#: Calls that are answered, on the average, before the node dies.
_PER_LIFE = 60
_CLIENTS = 8


class Clients:
    """Calls a node from several threads until it dies; remembers each call whose response ended."""

    def __init__(self, node: RunningNode, path: str, deadly: int) -> None:
        self._node = node
        self._path = path
        self._left = deadly
        self._lock = threading.Lock()
        self.answered: dict[str, str] = {}

    def run(self) -> None:
        """Call on and on; the answer that is the last one kills the node in the midst of the others."""
        number = 0
        name = threading.get_ident()
        while self._left > 0:
            number += 1
            said = f"{name} said {number}"
            try:
                answer = self._node.call(self._path, echo="x", say=said)
            except httpx.TransportError:
                return
            with self._lock:
                if answer.status_code == 200:
                    self.answered[answer.headers["fn_call_id"]] = said
                self._left -= 1
                if self._left == 0:
                    self._node.process.send_signal(signal.SIGKILL)


def test_every_answered_call_has_its_record_and_log_after_sudden_deaths(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    chance = random.Random(CALLS)
    answered: dict[str, str] = {}
    while len(answered) < CALLS:
        with (
            running_node("process", tmp_path, image, FN_LOG_LEVEL="error") as node,
            concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool,
        ):
            clients = Clients(node, node.route("talk", "json"), chance.randrange(1, 2 * _PER_LIFE))
            for done in [pool.submit(clients.run) for _ in range(_CLIENTS)]:
                done.result()
            node.process.wait(30)
        assert clients.answered
        answered |= clients.answered
    print(f"{len(answered)} calls were answered; make deaths runs the long form")
    check(tmp_path / "fn.db", answered)


def check(database: Path, answered: dict[str, str]) -> None:
    """What the file itself holds, once the last node has died."""
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        records = dict(connection.execute("SELECT id, status FROM calls").fetchall())
        logs = dict(connection.execute("SELECT id, log FROM logs").fetchall())
    connection.close()
    lost = {call_id: records.get(call_id) for call_id in answered if records.get(call_id) != "success"}
    assert lost == {}
    assert {call_id: logs[call_id].decode().strip() for call_id in answered} == answered


def test_a_log_store_that_is_away_costs_the_log_and_nothing_else(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with folder() as place, servers.s3(place) as server:
        address = f"s3://key:se%2Fcr%2Bet@127.0.0.1:{server.port}/us-east-1/logs"
        with running_node("process", tmp_path, image, FN_LOGSTORE_URL=address) as node:
            path = node.route("talk", "json")
            kept = node.call(path, echo="x", say="kept")
            server.stop()
            lost = node.call(path, echo="x", say="lost")
            server.start()
            after = node.call(path, echo="x", say="after")
            assert [answer.status_code for answer in (kept, lost, after)] == [200, 200, 200]
            assert {node.record(answer)["status"] for answer in (kept, lost, after)} == {"success"}
            assert (node.log(kept).strip(), node.log(after).strip()) == ("kept", "after")
            missing = node.http.get(f"/v1/apps/e2e/calls/{lost.headers['fn_call_id']}/log")
            assert (missing.status_code, missing.json()["error"]["message"]) == (404, "Call log not found")
            assert 'hearth_logs_lost{fn_appname="",fn_path=""} 1\n' in node.http.get("/metrics").text
            said = (tmp_path / "server.log").read_text()
            assert "error uploading log" in said
            assert "se/cr+et" not in said
