"""Few file descriptors: what does not fit is refused as busy, and blamed on nobody."""

from __future__ import annotations

import concurrent.futures
import contextlib
import resource
import signal
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from tests.support.node import BUSY, HEARTH, RunningNode, build_multi, running_node
from tests.support.raw_http import RawClient
from tests.support.scrape import samples
from tests.support.waiting import until

LIMIT = 96


@pytest.fixture
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that may open few files."""
    data = tmp_path_factory.mktemp("tight")
    image = build_multi(data, data / "source")
    command = ["/bin/sh", "-c", f"ulimit -n {LIMIT} && exec {HEARTH} start"]
    with running_node("process", data, image, command) as node:
        yield node


@pytest.mark.parametrize("format_name", ["default", "http"])
def test_calls_beyond_the_descriptors_are_busy(tight: RunningNode, format_name: str) -> None:
    path = tight.route(f"many-{format_name}", format_name, memory=64, timeout=60, idle_timeout=1)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: tight.call(path, sleep_ms=1000, echo=str(n)), range(20)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert [n for n, answer in enumerate(answers) if answer.status_code == 200 and answer.text != str(n)] == []
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json() == {"error": {"message": BUSY}}
            assert answer.headers["retry-after"] == "15"
    assert tight.call_once_free(path, echo="later").text == "later"


def test_connections_beyond_the_descriptors_are_answered_busy_and_counted(tight: RunningNode) -> None:
    answers = []
    with contextlib.ExitStack() as opened:
        for _ in range(LIMIT):
            client = opened.enter_context(RawClient(tight.url))
            client.send("GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
            answers.append(client.answer())
    assert None not in answers
    assert {answer.status for answer in answers if answer} == {200, 503}
    refused = [answer for answer in answers if answer and answer.status == 503]
    assert {(answer.message, answer.headers["retry-after"]) for answer in refused} == {(BUSY, "15")}
    assert until(lambda: tight.http.get("/metrics").status_code == 200)
    shown = tight.http.get("/metrics").text
    assert "hearth_connections_refused{" in shown or "hearth_connections_refused" in shown
    assert "connections are refused" in (tight.data / "server.log").read_text()


def test_connections_of_a_burst_are_answered_and_counted_although_they_are_silent(tight: RunningNode) -> None:
    """A few of those who are refused have a second to send their request; then they are closed without an answer."""
    burst = 3 * LIMIT
    with contextlib.ExitStack() as opened:
        tight.process.send_signal(signal.SIGSTOP)
        clients = [opened.enter_context(RawClient(tight.url)) for _ in range(burst)]
        tight.process.send_signal(signal.SIGCONT)
        found: Counter[int] = Counter()
        for client in clients:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was refused, and is closed
                client.send("GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = client.answer()
            found[answer.status if answer else 0] += 1
    assert found[503] > burst - LIMIT
    later: list[httpx.Response] = []

    def is_answered() -> bool:
        later.append(tight.http.get("/metrics"))
        return later[-1].status_code == 200

    assert until(is_answered)
    refused = burst - found[200] + len(later[:-1])
    assert samples(later[-1].text)["hearth_connections_refused", "", ""] == refused


def test_the_soft_limit_is_raised(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("soft")
    with running_node("process", data, "none", ["/bin/sh", "-c", f"ulimit -Sn 64 && exec {HEARTH} start"]) as node:
        soft, hard = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
