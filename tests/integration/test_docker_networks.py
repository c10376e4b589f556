"""Functions in Docker reach neither each other nor the node's control API."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.engine import PrivateEngine, private_engine
from tests.support.node import running_node
from tests.support.outside import addresses_of_this_machine

from hearth.drivers.base import Container, ContainerSpec, DriverUnavailable
from hearth.drivers.docker import networks
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver
from hearth.models.function_network import FunctionNetwork
from hearth.models.ids import encode

HOST = "unix:///var/run/docker.sock"
REACH = Path(__file__).parent.parent / "functions" / "reach.py"
PORT = 7070
REFUSED = "Functions may only call functions: the control API does not answer addresses in their network"
_numbers = itertools.count(os.getpid() << 32)


def spec(**act: Any) -> ContainerSpec:
    env = {"REACH": json.dumps(act)}
    return ContainerSpec(id=encode(next(_numbers)), image=python_image(REACH), env=env, memory_mib=64)


@contextlib.asynccontextmanager
async def opened(host: str = HOST, **walls: Any) -> AsyncIterator[DockerDriver]:
    """A driver of a node of its own; nodes of one name remove what they find of each other."""
    node = f"networks-{next(_numbers)}"
    driver = DockerDriver(host, node=node, instance="now", walls=Walls(**walls))
    try:
        await driver.open()
        yield driver
    finally:
        await driver.close()


@contextlib.asynccontextmanager
async def running(driver: DockerDriver, **act: Any) -> AsyncIterator[tuple[Container, dict[str, Any]]]:
    """A container that does ``act``, and what it told."""
    container = await driver.prepare(spec(**act))
    try:
        await container.start()
        line = b""
        while not line.endswith(b"\n"):
            data = await container.channel.stdout.read()
            assert data, await container.stderr.read()
            line += data
        yield container, json.loads(line)
    finally:
        await container.remove()


async def told(driver: DockerDriver, **act: Any) -> dict[str, Any]:
    async with running(driver, **act) as (_, found):
        return found


async def test_functions_do_not_reach_each_other(docker: None) -> None:
    async with opened() as driver, running(driver, listen=PORT) as (_, neighbour):
        place = f"{neighbour['addresses'][0]}:{PORT}"
        itself = f"127.0.0.1:{PORT}"
        assert (await told(driver, connect=[place, itself]))["connect"] == {
            place: "TimeoutError",
            itself: "ConnectionRefusedError",
        }
        assert driver.warnings == ()


@pytest.mark.parametrize(("network", "addresses"), [(FunctionNetwork.NONE, 0), (FunctionNetwork.INTERNET, 1)])
async def test_a_network_mode_decides_what_functions_are_given(
    docker: None, network: FunctionNetwork, addresses: int
) -> None:
    async with opened(network=network) as driver:
        assert len((await told(driver))["addresses"]) == addresses
        assert len(driver.function_subnets) == addresses


async def test_with_the_network_of_the_host_a_function_has_the_addresses_of_the_machine(docker: None) -> None:
    async with opened(network=FunctionNetwork.HOST) as driver:
        assert set((await told(driver))["addresses"]) >= set(addresses_of_this_machine())
        assert driver.function_subnets == (), "the addresses of the machine are not those of functions"


async def test_the_networks_of_the_operator_come_first_and_their_addresses_belong_to_functions(docker: None) -> None:
    async with opened(network=FunctionNetwork.NONE, networks=("bridge",)) as driver:
        assert len((await told(driver))["addresses"]) == 1
        assert len(driver.function_subnets) == 1


async def test_a_network_that_does_not_exist_is_named_at_the_start(docker: None) -> None:
    with pytest.raises(DriverUnavailable, match="FN_DOCKER_NETWORKS: the Docker Engine has no network nosuch"):
        async with opened(networks=("nosuch",)):
            pass


# -- Hearth's own network on an Engine that others use ----------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(docker: None) -> Iterator[PrivateEngine]:
    with private_engine() as private:
        private.copy_image(python_image(REACH))
        yield private


def own_networks(engine: PrivateEngine) -> list[str]:
    listed = engine.docker("network", "ls", "--quiet", "--no-trunc", "--filter", f"label={networks.LABEL}")
    return listed.stdout.decode().split()


async def test_nodes_that_start_together_share_one_network(engine: PrivateEngine) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes = await asyncio.gather(*[stack.enter_async_context(opened(engine.host)) for _ in range(4)])
        assert len(own_networks(engine)) == 1
        assert len({tuple(node.function_subnets) for node in nodes}) == 1


async def test_a_network_that_was_removed_is_created_again(engine: PrivateEngine) -> None:
    async with opened(engine.host) as driver, opened(engine.host) as other:
        assert engine.docker("network", "rm", networks.NAME).returncode == 0
        # A network of this size moves the new one to other addresses.
        assert engine.docker("network", "create", "taken", "--subnet", str(driver.function_subnets[0])).returncode == 0
        try:
            assert len((await told(other))["addresses"]) == 1
            assert len((await told(driver))["addresses"]) == 1
            assert driver.function_subnets == other.function_subnets
            assert len(own_networks(engine)) == 1
        finally:
            engine.docker("network", "rm", "taken")


async def test_functions_have_no_network_where_hearths_cannot_be_created(engine: PrivateEngine) -> None:
    engine.docker("network", "rm", networks.NAME)
    assert engine.docker("network", "create", networks.NAME).returncode == 0  # not Hearth's: containers see each other
    try:
        async with opened(engine.host) as driver:
            assert (await told(driver))["addresses"] == []
            assert "functions have no network" in driver.warnings[0]
        with pytest.raises(DriverUnavailable, match="FN_FUNCTION_NETWORK=internet"):
            async with opened(engine.host, network=FunctionNetwork.INTERNET):
                pass
    finally:
        engine.docker("network", "rm", networks.NAME)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("-F", "the Docker Engine does not keep containers apart (it may run with --iptables=false)"),
        (f"-A FORWARD -i {networks.BRIDGE} -o {networks.BRIDGE} -j DROP", "None"),
    ],
)
def test_an_engine_that_filters_nothing_is_recognized(docker: None, rules: str, found: str) -> None:
    """The same bridge, as it is where the Engine runs with ``--iptables=false``, and with the Engine's rule."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace of a test needs root")
    look = "from hearth.drivers.docker import networks; print(networks.why_not_separated('', ['10.99.0.1']))"
    bridge = f"ip link add {networks.BRIDGE} type bridge && ip address add 10.99.0.1/24 dev {networks.BRIDGE}"
    script = f'{bridge} && iptables -w 5 {rules} && exec "$0" -c "$1"'
    command = ["unshare", "--net", "sh", "-c", script, sys.executable, look]
    assert subprocess.check_output(command, text=True).strip() == found


# -- the control API --------------------------------------------------------------------------------------------------


def test_a_function_reaches_calls_of_the_node_but_not_its_control_api(docker: None, tmp_path: Path) -> None:
    """Through the gateway of its network; everybody else has both."""
    with running_node(
        "docker", tmp_path, python_image(REACH), address="127.0.0.1", FN_BIND="0.0.0.0", FN_AUTH="off"
    ) as node:
        port = httpx.URL(node.url).port
        paths = [
            "/v1/apps",
            "/",
            "/version",
            "/metrics",
            "/stats",
            "/readyz",
            "/v1/runner/async",
            "/nosuch",
            "/r",
            "//r/",
        ]
        program = (
            "import http.client, json, os, sys\n"
            "exec(open('/function.py').read().replace('len(sys.argv) == 1', 'False'))\n"
            "told = {}\n"
            "for path in json.loads(os.environ['PATHS']):\n"
            f"    client = http.client.HTTPConnection(gateway(), {port})\n"
            "    client.request('GET', path)\n"
            "    answer = client.getresponse()\n"
            "    told[path] = [answer.status, json.loads(answer.read())['error']['message']]\n"
            "print(json.dumps(told))\n"
        )
        command = ["docker", "run", "--rm", "--network", networks.NAME, "--env"]
        command += [f"PATHS={json.dumps([*paths, '/r/nosuch/x'])}", python_image(REACH), "-c", program]
        command[-3:] = ["--entrypoint", python_of(python_image(REACH)), *command[-3:]]
        answers = json.loads(subprocess.check_output(command))
        assert answers.pop("/r/nosuch/x") == [404, "App not found"]
        assert answers == {path: [403, REFUSED] for path in paths}
        assert node.http.get("/v1/apps").status_code == 200


def python_of(image: str) -> str:
    shown = subprocess.check_output(["docker", "image", "inspect", image, "--format", "{{index .Config.Entrypoint 0}}"])
    return shown.decode().strip()
