"""Several runners on one machine: an API node, the runners, and HAProxy in front of them.

A node is one process with one event loop, which uses one CPU at most. More nodes use more CPUs, on one machine as on
several. The processes of a local fleet start and stop together, and one that ends unexpectedly is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from hearth.authorize.admin_token import admin_token
from hearth.drivers.local import bundle
from hearth.host import machine, private_files
from hearth.models.errors import StartUpError
from hearth.nodes.drivers import decide
from hearth.nodes.member_process import MemberProcess
from hearth.nodes.ports import listen, own_url
from hearth.settings import Settings, environment
from hearth.telemetry.logs import get_logger

#: Seconds for which a stopping runner reports that it is not ready, before it refuses calls: three checks by HAProxy.
_DRAIN_S: Final = 2
_MIB: Final = 1 << 20

_HAPROXY_CONFIG: Final = """
defaults
    mode http
    timeout connect 2s
    # above the longest timeout of a route with its wait and its start
    timeout client 330s
    timeout server 330s
    timeout http-request {header_timeout:.0f}s
    # only where nothing was sent: a call must not run twice
    retries 2
    retry-on conn-failure
    option redispatch 1
    option forwardfor
    option httpchk GET /readyz
    default-server check inter 500ms fall 1 rise 1

frontend hearth
    bind {address}:{port} v4v6
    # a node decodes a path before it looks where it leads, so this does, too; escapes that are none have no meaning
    http-request deny deny_status 400 if !{{ path,url_dec -m found }}
    # between nodes only
    http-request deny deny_status 404 if {{ path,url_dec -m beg -i /v1/runner }}
    use_backend runners if {{ path,url_dec -m beg /r/ /invoke/ /t/ }}
    default_backend api

backend runners
    balance leastconn
{runners}

backend api
    server api 127.0.0.1:{api}
"""

_log = get_logger(__name__)


async def serve_local_fleet(
    settings: Settings, runners: int, start_node: tuple[str, ...], announce: Callable[[str, str], None]
) -> None:
    """Run a local fleet until SIGINT or SIGTERM.

    Args:
        settings: The settings of the fleet as a whole.
        runners: The number of runners.
        start_node: The command that starts a node which prints a line ``driver`` when it serves.
        announce: Called with the URL and the driver when the fleet accepts requests.

    Raises:
        StartUpError: A process does not start, or HAProxy is not installed.
    """
    single = {
        "FN_ADMIN_BIND": settings.admin_bind,
        "FN_SOCKET": settings.socket,
        "FN_TLS_CERT": settings.tls_cert,
        "FN_TLS_CLIENT_CA": settings.tls_client_ca,
    }
    for name, value in single.items():
        if value:
            raise StartUpError(f"{name}={value}: --nodes listens on one address without TLS; unset it")
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        raise StartUpError("--nodes puts HAProxy in front of the nodes; install it (Debian: apt-get install haproxy)")
    listen(settings.address, settings.port).close()  # a server that holds the port would pass for HAProxy
    halt = asyncio.Event()
    loop = asyncio.get_running_loop()
    driver = await decide(settings)
    async with _members(settings, runners, start_node, haproxy, driver) as members:
        for number in (signal.SIGINT, signal.SIGTERM):  # until here a signal interrupts the start
            loop.add_signal_handler(number, halt.set)
        announce(own_url(settings.address, settings.port), driver)
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(member.keep_running()) for member in members]
            await halt.wait()
            _log.info("Halting...")
            for watch in watches:
                watch.cancel()


@contextlib.asynccontextmanager
async def _members(
    settings: Settings, count: int, start_node: tuple[str, ...], haproxy: str, driver: str
) -> AsyncIterator[list[MemberProcess]]:
    """Start the API node, then the runners, then HAProxy; stop them in the reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        api_port, *ports = _free_ports(count + 1)
        common = {
            "FN_RUNNER_TOKEN": settings.runner_token.get_secret_value() or secrets.token_hex(),
            "FN_ADMIN_TOKEN": await asyncio.to_thread(admin_token, settings),
            "FN_BIND": "127.0.0.1",
            "FN_DATA_DIR": str(settings.data),
            "FN_DRIVER": driver,
        }

        def node(name: str, **variables: str) -> MemberProcess:
            return MemberProcess(name, start_node, environment(**{**common, **variables}), b"driver")

        api = node("the API node", FN_NODE_TYPE="api", FN_PORT=str(api_port))
        stack.push_async_callback(api.stop)
        await api.start()
        runners = [
            node(f"runner {number}", **variables)
            for number, variables in enumerate(_runner_variables(settings, api_port, ports), 1)
        ]
        stack.push_async_callback(_stop_all, runners)
        await asyncio.gather(*[runner.start() for runner in runners])
        file = settings.data / "haproxy.cfg"
        file.write_text(haproxy_config(settings, api_port, ports))
        front = MemberProcess(
            "haproxy",
            (haproxy, "-db", "-q", "-f", str(file)),
            environment(),
            address=(settings.address or "127.0.0.1", settings.port),
            stop_signal=signal.SIGUSR1,
        )
        stack.push_async_callback(front.stop)
        await front.start()
        yield [api, *runners, front]


def _runner_variables(settings: Settings, api_port: int, ports: list[int]) -> Iterator[dict[str, str]]:
    """Yield the variables of each runner: its share of the machine and its own data folder with the shared bundles."""
    found = machine.detect()
    memory = settings.max_total_memory or found.memory_mib * _MIB
    cpu = settings.max_total_cpu or found.cpu_milli
    for number, port in enumerate(ports, 1):
        folder = settings.data / f"runner-{number}"
        private_files.make_folder(folder)
        if not (folder / "bundles").exists():
            bundle.make_folder(settings.bundles)
            (folder / "bundles").symlink_to(settings.bundles)
        yield {
            "FN_NODE_TYPE": "runner",
            "FN_RUNNER_API_URL": f"http://127.0.0.1:{api_port}",
            "FN_PORT": str(port),
            "FN_DATA_DIR": str(folder),
            **{"FN_SECRET_KEY": "", "FN_SECRET_KEY_FILE": ""},  # only the API node decrypts secrets
            "FN_MAX_TOTAL_MEMORY": str(memory // len(ports)),
            "FN_MAX_TOTAL_CPU": str(cpu // len(ports)),
            "FN_DRAIN_DELAY_S": str(max(_DRAIN_S, settings.drain_delay_s)),
        }


def haproxy_config(settings: Settings, api_port: int, ports: list[int]) -> str:
    """Return the configuration of the HAProxy before an API node and runners on these ports of this machine."""
    lines = "\n".join([f"    server runner-{number} 127.0.0.1:{port}" for number, port in enumerate(ports, 1)])
    return _HAPROXY_CONFIG.format(
        address=settings.address,
        port=settings.port,
        api=api_port,
        runners=lines,
        header_timeout=settings.header_timeout_s,
    )


async def _stop_all(members: list[MemberProcess]) -> None:
    await asyncio.gather(*[member.stop() for member in members])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
