"""An API node (or a full one) with runners, each a process with a data folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from tests.support.hosts import Host
from tests.support.node import HEARTH, RunningNode, build_multi, running_node

RUNNER_TOKEN = "token-of-the-runners"
QUICK = {"FN_RUNNER_QUIET_S": "0", "FN_LOG_LEVEL": "info", "FN_RUNNER_TOKEN": RUNNER_TOKEN}


class Fleet:
    """What runs; nodes can be added. Those that have a host by their name run there."""

    def __init__(
        self,
        folder: Path,
        stack: contextlib.ExitStack,
        image: str,
        environment: dict[str, str],
        hosts: Mapping[str, Host],
        driver: str = "process",
    ) -> None:
        self.folder = folder
        self.driver = driver
        self.image = image
        self.environment = environment
        self.hosts = hosts
        self._stack = stack
        self.runners: list[RunningNode] = []
        self.api: RunningNode

    def start_api(self, kind: str = "api", **environment: str) -> RunningNode:
        """A node with the data of the API node."""
        self.api = self.start("api", FN_NODE_TYPE=kind, **environment)
        return self.api

    def start_runner(self, name: str, api_url: str | None = None, **environment: str) -> RunningNode:
        """A runner with the data of this name."""
        runner = self.start(name, FN_NODE_TYPE="runner", FN_RUNNER_API_URL=api_url or self.api.url, **environment)
        self.runners.append(runner)
        return runner

    def start(self, name: str, **environment: str) -> RunningNode:
        """Any node."""
        data = self.folder / name
        data.mkdir(exist_ok=True)
        bundles = data / "bundles"
        if self.driver == "process" and not bundles.exists():
            bundles.symlink_to(self.folder / "shared" / "bundles")
        variables = {**self.environment, **environment}
        if (host := self.hosts.get(name)) is None:
            return self._stack.enter_context(running_node(self.driver, data, self.image, **variables))
        command = host.command(HEARTH, "start")
        variables = {"FN_AUTH": "off", **variables}  # it is reached from other hosts
        return self._stack.enter_context(
            running_node(self.driver, data, self.image, command, host.address, **variables)
        )

    def call(self, runner: RunningNode, path: str, **orders: object) -> httpx.Response:
        """Call a route on a runner."""
        return runner.http.post(path, json=orders)


@contextlib.contextmanager
def running_fleet(
    folder: Path,
    *,
    runners: int = 1,
    kind: str = "api",
    image: str = "",
    hosts: Mapping[str, Host] | None = None,
    driver: str = "process",
    **environment: str,
) -> Iterator[Fleet]:
    """An API node and so many runners; leaving it stops all. On Docker the image is to be given."""
    image = image or build_multi(folder / "shared", folder / "source")
    with contextlib.ExitStack() as stack:
        fleet = Fleet(folder, stack, image, {**QUICK, **environment}, hosts or {}, driver)
        fleet.start_api(kind)
        for number in range(runners):
            fleet.start_runner(f"runner{number}")
        yield fleet
