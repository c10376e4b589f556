"""Functions in Docker reach neither each other nor the node's control API."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
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
from tests.support import outside
from tests.support.docker_images import python_image
from tests.support.engine import PrivateEngine, private_engine
from tests.support.node import running_node
from tests.support.outside import addresses_of_this_machine
from tests.support.servers import free_port

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
        if allowed := walls.get("allowed_networks"):
            subprocess.run(["docker", "network", "rm", networks.Own.of(allowed).name], capture_output=True)


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


async def test_a_function_reaches_the_internet_and_the_private_networks_that_are_allowed(docker: None) -> None:
    """The other end of a cable has a public, a private and a link-local address, and so has this machine."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Of this machine\r\nConnection: close\r\n\r\n")
        writer.close()

    with outside.connected() as there:
        service = await asyncio.start_server(serve, "0.0.0.0", 0)
        port = service.sockets[0].getsockname()[1]
        public, private, link = (f"{address}:{outside.PORT}" for address in (there.public, there.private, there.link))
        ours = [f"{address}:{port}" for address in ("GATEWAY", *there.ours)]
        everything = [public, private, link, *ours]
        refused = dict.fromkeys(everything, "OSError")  # no route to host: the answer comes at once
        async with service, opened() as driver:
            assert (await told(driver, connect=everything))["connect"] == refused | {public: outside.ANSWER}
            allowed = tuple(ipaddress.IPv4Network(text) for text in (there.private_network, f"{there.ours[0]}/32"))
            async with opened(allowed_networks=allowed) as other:
                answered = {public: outside.ANSWER, private: outside.ANSWER, ours[1]: "HTTP/1.1 200 Of this machine"}
                assert (await told(other, connect=everything))["connect"] == refused | answered
                assert driver.function_subnets != other.function_subnets
                # The rules of a node do not change those of another.
                assert (await told(driver, connect=everything))["connect"] == refused | {public: outside.ANSWER}


@pytest.mark.parametrize(("allowed", "end"), [((), "OSError"), ((ipaddress.IPv4Network("0.0.0.0/0"),), "TimeoutError")])
async def test_functions_do_not_reach_each_other(
    docker: None, allowed: tuple[ipaddress.IPv4Network, ...], end: str
) -> None:
    """Not even where their own network is allowed: then the Engine drops what Hearth does not refuse."""
    async with opened(allowed_networks=allowed) as driver, running(driver, listen=PORT) as (_, neighbour):
        place = f"{neighbour['addresses'][0]}:{PORT}"
        itself = f"127.0.0.1:{PORT}"
        assert (await told(driver, connect=[place, itself]))["connect"] == {
            place: end,
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
        assert len({tuple(node.function_subnets) for node in nodes}) == 1, [node.warnings for node in nodes]


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
        (f"-A FORWARD -i {networks.BRIDGE} -o {networks.BRIDGE} -j DROP", "iptables"),
    ],
)
def test_an_engine_that_filters_nothing_is_recognized(docker: None, rules: str, found: str) -> None:
    """The same bridge, as it is where the Engine runs with ``--iptables=false``, and with the Engine's rule."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace of a test needs root")
    look = f"""
from hearth.drivers.docker import firewall
try:
    print(firewall.separating_rules("{networks.BRIDGE}", "", ["10.99.0.1"])[0])
except firewall.NotClosed as exc:
    print(exc)
"""
    assert on_a_bridge(look, f"iptables -w 5 {rules}") == found


def test_the_rules_of_nodes_are_removed_with_the_last_one_that_uses_the_bridge(docker: None, tmp_path: Path) -> None:
    look = f"""
import subprocess
from hearth.drivers.docker.firewall import Firewall

def hearths():
    shown = subprocess.check_output(["iptables", "-S"], text=True).splitlines()
    return [rule for rule in shown if "{networks.BRIDGE}" in rule and "DROP" not in rule]

def is_open(port):
    return any(f"--dport {{port}} " in rule for rule in hearths())

one, other = Firewall("{networks.BRIDGE}", (), 8080), Firewall("{networks.BRIDGE}", (), 8081)
for node in (one, other):
    node.apply("", ["10.99.0.1"])
assert is_open(8080) and is_open(8081), hearths()
assert sum("-d 10.7.7.7/32" in rule and "--dport 53" in rule for rule in hearths()) == 4, hearths()
before = hearths()
one.apply("", ["10.99.0.1"])
assert hearths() == before, "a second time changes nothing"

subprocess.check_call(["iptables", "-F", "DOCKER-USER"])
assert not one.is_applied()
one.apply("", ["10.99.0.1"])
assert one.is_applied() and other.is_applied()

one.remove()
assert other.is_applied() and is_open(8081) and not is_open(8080)

subprocess.check_call("ip link add left type veth peer name right".split())
subprocess.check_call("ip link set left master {networks.BRIDGE}".split())
other.remove()
assert hearths() and not is_open(8081), "a container of a node that was killed may still run"
other.apply("", ["10.99.0.1"])
subprocess.check_call(["ip", "link", "delete", "left"])
other.remove()
print(hearths())
"""
    servers = tmp_path / "resolv.conf"
    servers.write_text("nameserver 127.0.0.53\nnameserver 10.7.7.7\n")
    engine = "iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER"
    engine += f" && iptables -A FORWARD -i {networks.BRIDGE} -o {networks.BRIDGE} -j DROP"
    assert on_a_bridge(look, f"mount --bind {servers} /etc/resolv.conf && {engine}") == "[]"


def test_a_node_that_cannot_keep_functions_from_private_networks_says_so(docker: None) -> None:
    """From another network namespace a node reaches the Engine, and not its firewall."""
    look = f"""
import asyncio
import sys
from hearth.aio.clock import SystemClock
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker import networks
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.engine import Engine
from hearth.models.function_network import FunctionNetwork

async def main():
    driver = DockerDriver("{HOST}", node="networks-{next(_numbers)}", instance="now")
    await driver.open()
    print(*driver.warnings, sep="", file=sys.stderr)
    await driver.close()
    engine = Engine("{HOST}", SystemClock())
    print("; ".join(await networks.diagnose(engine, ())), file=sys.stderr)
    await engine.close()
    walls = Walls(network=FunctionNetwork.INTERNET)
    driver = DockerDriver("{HOST}", node="networks-{next(_numbers)}", instance="now", walls=walls)
    try:
        await driver.open()
    except DriverUnavailable as exc:
        print(exc, file=sys.stderr)
    await driver.close()

asyncio.run(main())
"""
    if os.geteuid() != 0:
        pytest.skip("a network namespace of a test needs root")
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", look], capture_output=True, text=True, check=True)
    reason = f"{networks.OPEN}: the Docker Engine is on another machine, or in another network namespace"
    assert done.stderr.splitlines() == [
        f"{reason}; {networks.CLOSE_THEM}",
        f"{reason}; {networks.CLOSE_THEM}",
        f"FN_FUNCTION_NETWORK=internet: {reason}; unset it and {networks.CLOSE_THEM}",
    ]


def on_a_bridge(look: str, prepare: str) -> str:
    """Run Python in a network namespace with the bridge of functions; what it printed."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace of a test needs root")
    bridge = f"ip link add {networks.BRIDGE} type bridge && ip address add 10.99.0.1/24 dev {networks.BRIDGE}"
    script = f'mount -t sysfs none /sys && {bridge} && {prepare} && exec "$0" -c "$1"'
    command = ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable, look]
    return subprocess.check_output(command, text=True).strip()


# -- the control API --------------------------------------------------------------------------------------------------


def test_a_function_reaches_calls_of_the_node_but_not_its_control_api(docker: None, tmp_path: Path) -> None:
    """Through the gateway of its network, whatever token it shows; everybody else has both."""
    tokens = {"FN_ADMIN_TOKEN": "token-of-the-admin-1234", "FN_RUNNER_TOKEN": "token-of-the-runners-1234"}
    with running_node(
        "docker",
        tmp_path,
        python_image(REACH),
        address="127.0.0.1",
        FN_BIND="0.0.0.0",
        FN_PORT=str(free_port()),
        FN_AUTH="off",
        **tokens,
    ) as node:
        port = httpx.URL(node.url).port
        paths = [
            "/v1/apps",
            "/",
            "/version",
            "/metrics",
            "/stats",
            "/readyz",
            "/v1/runner/async?wait_s=0",
            "/v1/apps/e2e/secrets",
            "/v1/tokens",
            "/v2/",
            "/v2/apps",
            "/v2/e2e/f/manifests/1",
            "/ui/",
            "/ui/data/me",
            "/ui/api/v1/apps",
            "/ui/call/r/nosuch/x",
            "/nosuch",
            "/r",
            "//r/",
        ]
        program = (
            "import http.client, json, os, sys\n"
            "exec(open('/function.py').read().replace('len(sys.argv) == 1', 'False'))\n"
            "told = {}\n"
            "for path in json.loads(os.environ['PATHS']):\n"
            f"    for token in {[*tokens.values(), '']}:\n"
            f"        client = http.client.HTTPConnection(gateway(), {port})\n"
            "        client.request('GET', path, headers={'Authorization': 'Bearer ' + token} if token else {})\n"
            "        answer = client.getresponse()\n"
            "        told.setdefault(path, []).append([answer.status, answer.read().decode()])\n"
            "print(json.dumps(told))\n"
        )
        command = ["docker", "run", "--rm", "--network", networks.NAME, "--env"]
        command += [f"PATHS={json.dumps([*paths, '/r/nosuch/x'])}", python_image(REACH), "-c", program]
        command[-3:] = ["--entrypoint", python_of(python_image(REACH)), *command[-3:]]
        answers = json.loads(subprocess.check_output(command))
        for status, text in answers.pop("/r/nosuch/x"):
            assert (status, "App not found" in text) == (404, True)
        assert set(answers) == set(paths)
        for path, given in answers.items():
            assert [(status, REFUSED in text) for status, text in given] == [(403, True)] * 3, path
        assert node.http.get("/v1/apps").status_code == 200


def python_of(image: str) -> str:
    shown = subprocess.check_output(["docker", "image", "inspect", image, "--format", "{{index .Config.Entrypoint 0}}"])
    return shown.decode().strip()
