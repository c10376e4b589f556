"""A Docker Engine that dies under load and comes back: clear errors meanwhile, then calls run again, same server."""

from __future__ import annotations

import collections
import threading
from pathlib import Path

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.engine import PrivateEngine, private_engine
from tests.support.node import MULTI, RunningNode, running_node
from tests.support.waiting import until


class Callers:
    """Clients that call one function again and again, and count what they see."""

    def __init__(self, node: RunningNode, path: str, clients: int) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._url, self._path = node.url, path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, client: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            number = 0
            while not self._stop.is_set():
                number += 1
                text = f"{client}: {number}"
                answer = http.post(self._path, json={"echo": text})
                self.seen[str(answer.status_code)] += 1
                if answer.status_code == 200 and answer.text != text:
                    self.wrong.append(f"{text}: {answer.text}")
                elif answer.status_code >= 500:
                    assert answer.json()["error"]["message"]


def test_the_engine_may_die_under_load_and_come_back(docker: None, tmp_path: Path) -> None:
    image = python_image(MULTI)
    with private_engine() as engine:
        engine.copy_image(image)
        with running_node("docker", tmp_path, image, DOCKER_HOST=engine.host) as node:
            _play(node, engine)
        assert engine.docker("ps", "-aq").stdout.split() == []  # the node has removed what it made


def _play(node: RunningNode, engine: PrivateEngine) -> None:
    path = node.route("through", "http", timeout=10)
    assert node.call(path, echo="before").text == "before"
    with Callers(node, path, clients=4) as callers:
        assert until(lambda: callers.seen["200"] > 20)
        engine.kill()
        assert until(lambda: sum(callers.seen.values()) - callers.seen["200"] > 4), "nobody was told"
        assert node.process.poll() is None
        assert node.http.get("/v1/apps").status_code == 200  # the rest of the node does not care
        engine.start()
        good = callers.seen["200"]
        assert until(lambda: callers.seen["200"] > good + 20), callers.seen
    assert callers.wrong == []
    assert set(callers.seen) <= {"200", "500", "502", "503", "504"}


@pytest.mark.usefixtures("docker")
def test_a_node_without_an_engine_at_its_start_takes_processes_unless_told_otherwise(tmp_path: Path) -> None:
    with running_node("auto", tmp_path, "x:1", DOCKER_HOST=f"unix://{tmp_path}/none.sock") as node:
        answer = node.call(node.route("none", "http"), echo="x")
        assert answer.json()["error"]["message"] == "Failed to pull image 'x:1': no such bundle"
