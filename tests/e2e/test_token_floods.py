"""Thousands of wrong tokens and passwords a second against a node: other clients, its processor, memory and logs."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.turns import LIMIT_S, limit_s

from hearth.authorize.tokens import new_token

ADMIN = "token-of-the-admin-1234"
FLOOD = 3_000
PIPELINED = 25
CONNECTIONS = 4
#: Far more lines of the log, and events of the audit log, than an address may cause in minutes.
FEW = FLOOD // 20
#: Microseconds of processor time that a wrong token may cost a node, with what others ask meanwhile: at 1,000 a second,
#: two fifths of one processor are left to them. On a slow machine, more.
COST_US = 600
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that wants tokens, and has a function that wants one, too."""
    data = tmp_path_factory.mktemp("flooded")
    image = build_multi(data, data / "source" / "multi")
    with running_node("process", data, image, FN_AUTH="required", FN_ADMIN_TOKEN=ADMIN) as node:
        node.http.headers["Authorization"] = f"Bearer {ADMIN}"
        yield node


def wrong_tokens() -> Iterator[str]:
    """Return other tokens each time: texts, those that were made elsewhere, and those with a checksum that fits."""
    for number in itertools.count():
        yield (f"guess-{number}", new_token(), f"hearth_{secrets.token_hex(20)}", "a.b.c", "\xff" * 40)[number % 5]


class Flood(threading.Thread):
    """Sends wrong tokens from an address of its own, as fast as they are answered.

    Attributes:
        statuses: How often each status was answered.
        tokens: Some of those that were shown.
    """

    def __init__(self, url: str, source: str, request: Callable[[str], str]) -> None:
        super().__init__(daemon=True)
        self._address = urlsplit(url)
        self._source = source
        self._request = request
        self.statuses: Counter[int] = Counter()
        self.tokens: list[str] = []

    def run(self) -> None:
        tokens = wrong_tokens()
        places = [self._connect() for _ in range(CONNECTIONS)]
        for _ in range(FLOOD // PIPELINED // CONNECTIONS):
            for place in places:
                shown = list(itertools.islice(tokens, PIPELINED))
                self.tokens += shown[:1]
                place.sendall("".join(self._request(one) for one in shown).encode("latin-1"))
            for place in places:
                self._read(place)
        for place in places:
            place.close()

    def _connect(self) -> socket.socket:
        where = (self._address.hostname or "", self._address.port or 0)
        return socket.create_connection(where, timeout=120, source_address=(self._source, 0))

    def _read(self, place: socket.socket) -> None:
        data = b""
        while len(found := _STATUS.findall(data)) < PIPELINED or not data.rstrip().endswith((b"}}", b"]}")):
            part = place.recv(1 << 16)
            assert part, f"closed after {len(found)} answers"
            data += part
        self.statuses.update(int(status) for status in found)


def request(node: RunningNode, line: str, fields: str, body: str = "") -> str:
    host = urlsplit(node.url).netloc
    return f"{line} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"


def requests(node: RunningNode, target: str, path: str) -> Callable[[str], str]:
    """Return what shows a token to a target."""

    def bearing(token: str) -> str:
        where = "/v1/apps" if target == "the API" else path
        return request(node, f"GET {where}", f"Authorization: Bearer {token}\r\n")

    def with_password(token: str) -> str:
        shown = base64.b64encode(f"user:{token}".encode("latin-1")).decode()
        return request(node, "GET /v2/", f"Authorization: Basic {shown}\r\n")

    def logging_in(token: str) -> str:
        return request(node, "POST /ui/login", f"X-Hearth-Page: {key}\r\n", json.dumps({"token": token}))

    if target == "the registry":
        return with_password
    if target != "the login":
        return bearing
    page = httpx.get(f"{node.url}/ui/").text
    key = page.partition('name="hearth-page" content="')[2].partition('"')[0]
    return logging_in


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("the API", "127.0.0.9"),
        ("a closed route", "127.0.0.10"),
        ("the registry", "127.0.0.11"),
        ("the login", "127.0.0.12"),
    ],
)
def test_wrong_tokens_at_a_high_rate_disturb_nobody_else(node: RunningNode, target: str, source: str) -> None:
    path = node.route("closed", "http", auth="token")
    proc = Path(f"/proc/{node.process.pid}")

    def is_served() -> None:
        assert node.http.get("/v1/apps").status_code == 200
        assert node.call(path, echo="x").text == "x"

    def cpu_s() -> float:
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory() -> int:
        return int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    is_served()
    log = node.data / "server.log"
    lines, events = len(log.read_text().splitlines()), audit_events(node)
    flood = Flood(node.url, source, requests(node, target, path))
    before_s, memory_before = cpu_s(), memory()
    flood.start()
    served = 0
    while flood.is_alive():
        is_served()
        served += 1
    flood.join()
    assert served > 0
    assert set(flood.statuses) <= {401, 429}
    assert flood.statuses[401] >= 10
    assert flood.statuses.total() == FLOOD
    assert memory() - memory_before < 32 << 20
    cost_us = (cpu_s() - before_s) / FLOOD * 1e6
    print(f"{target}: {flood.statuses}, {served} others served, {cost_us:.0f} us of CPU for each wrong token")
    assert cost_us < COST_US * limit_s() / LIMIT_S
    text = log.read_text()
    signs = (source, "wrong token", "refused")
    new = [line for line in text.splitlines()[lines:] if any(sign in line for sign in signs)]
    assert len(new) <= FEW
    assert audit_events(node) - events <= FEW
    assert not [token for token in flood.tokens if token in text]
    is_served()


def audit_events(node: RunningNode) -> int:
    """Count the stored events of refused requests, which are at most a page."""
    found = node.http.get("/v1/audit", params={"per_page": 100})
    assert found.status_code == 200
    return sum(event["status"] in (401, 429) for event in found.json()["events"])
