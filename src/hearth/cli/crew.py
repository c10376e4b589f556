"""hearth start --nodes: as many runners as there are processors to use, one API node, HAProxy in front of them.

A node is one process with one event loop. More processors are used by more nodes, as more machines are; here all of
them are on this one, and start and stop as one. A member that dies is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

from hearth.agent import machine
from hearth.clock import SystemClock, pause
from hearth.models.errors import StartUpError
from hearth.nodes.ports import listen, own_url
from hearth.settings import Settings, environment
from hearth.telemetry.logs import get_logger

_HEARTH: Final = (sys.executable, "-c", "from hearth.cli import main; main()", "start")
_PR_SET_PDEATHSIG: Final = 1
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.05
#: Seconds for which a runner that is to stop says so first: three looks of the balancer.
_DRAIN_S: Final = 2
_MIB: Final = 1 << 20

_BALANCER: Final = """
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
    # between nodes only
    http-request deny deny_status 404 if {{ path,url_dec -m beg -i /v1/runner }}
    use_backend runners if {{ path_beg /r/ }}
    default_backend api

backend runners
    balance leastconn
{runners}

backend api
    server api 127.0.0.1:{api}
"""

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class _Member:
    """One process of the crew.

    Attributes:
        says: What it prints when it serves; it is waited for that.
        address: Where it serves, if it prints nothing.
        stop: The signal that ends it in peace.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    says: bytes = b""
    address: tuple[str, int] = ("", 0)
    stop: signal.Signals = signal.SIGTERM
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            StartUpError: It ended instead; it has told why.
        """
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for us: members end in their order
            preexec_fn=_end_with_parent,
        )
        assert self.process.stdout is not None
        while self.says:
            line = await self.process.stdout.readline()
            if not line:
                raise StartUpError(f"{self.name} did not start; see above")
            if line.strip().startswith(self.says):
                return
        while not await _is_open(*self.address):
            if self.process.returncode is not None:
                raise StartUpError(f"{self.name} did not start; see above")
            await pause(SystemClock(), _LOOK_S)

    async def end(self) -> None:
        """Have it end, and wait for that."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(self.stop)
        await self.process.wait()


def _end_with_parent() -> None:
    """However this process ends, its members are told to."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def run(settings: Settings, nodes: int, announce: Callable[[str], None]) -> None:
    """Run so many runners until SIGINT or SIGTERM.

    Raises:
        StartUpError: One of them does not start, or there is no balancer.
    """
    balancer = shutil.which("haproxy")
    if balancer is None:
        raise StartUpError("--nodes puts HAProxy in front of the nodes; install it (Debian: apt-get install haproxy)")
    listen(settings.bind, settings.port).close()  # else whoever has the port would be taken for the balancer
    halt = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with _crew(settings, nodes, balancer) as members:
        for number in (signal.SIGINT, signal.SIGTERM):  # a start is broken off by what they do without this
            loop.add_signal_handler(number, halt.set)
        announce(own_url(settings.bind, settings.port))
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(_keep(member)) for member in members]
            await halt.wait()
            _log.info("Halting...")
            for watch in watches:
                watch.cancel()


@contextlib.asynccontextmanager
async def _crew(settings: Settings, nodes: int, balancer: str) -> AsyncIterator[list[_Member]]:
    """The API node first, then the runners, then who sends them calls; the other way round at the end."""
    async with contextlib.AsyncExitStack() as stack:
        api, *runners = _free_ports(nodes + 1)
        common = {
            "FN_RUNNER_TOKEN": settings.runner_token.get_secret_value() or secrets.token_hex(),
            "FN_BIND": "127.0.0.1",
        }
        first = _Member("the API node", _HEARTH, environment(**common, FN_NODE_TYPE="api", FN_PORT=str(api)), b"driver")
        stack.push_async_callback(first.end)
        await first.start()
        crew = [
            _Member(f"runner {number}", _HEARTH, environment(**common, **variables), b"driver")
            for number, variables in enumerate(_runners(settings, api, runners), 1)
        ]
        stack.push_async_callback(_end_all, crew)
        await asyncio.gather(*[runner.start() for runner in crew])
        file = settings.data / "haproxy.cfg"
        file.write_text(_balance(settings, api, runners))
        front = _Member(
            "haproxy",
            (balancer, "-db", "-q", "-f", str(file)),
            environment(),
            address=(settings.bind or "127.0.0.1", settings.port),
            stop=signal.SIGUSR1,
        )
        stack.push_async_callback(front.end)
        await front.start()
        yield [first, *crew, front]


def _runners(settings: Settings, api: int, ports: list[int]) -> Iterator[dict[str, str]]:
    """What each runner is told: its share of the machine, a folder of its own, the bundles of all."""
    found = machine.detect()
    memory = settings.max_total_memory or found.memory_mib * _MIB
    cpu = settings.max_total_cpu or found.cpu_milli
    for number, port in enumerate(ports, 1):
        folder = settings.data / f"runner-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "bundles").exists():
            settings.bundles.mkdir(exist_ok=True)
            (folder / "bundles").symlink_to(settings.bundles)
        yield {
            "FN_NODE_TYPE": "runner",
            "FN_RUNNER_API_URL": f"http://127.0.0.1:{api}",
            "FN_PORT": str(port),
            "FN_DATA_DIR": str(folder),
            "FN_MAX_TOTAL_MEMORY": str(memory // len(ports)),
            "FN_MAX_TOTAL_CPU": str(cpu // len(ports)),
            "FN_DRAIN_DELAY_S": str(max(_DRAIN_S, settings.drain_delay_s)),
        }


def _balance(settings: Settings, api: int, runners: list[int]) -> str:
    lines = "\n".join([f"    server runner-{number} 127.0.0.1:{port}" for number, port in enumerate(runners, 1)])
    return _BALANCER.format(
        address=settings.bind,
        port=settings.port,
        api=api,
        runners=lines,
        header_timeout=settings.header_timeout_s,
    )


async def _keep(member: _Member) -> None:
    """Start it again whenever it has ended."""
    clock = SystemClock()
    while True:
        assert member.process is not None
        code = await member.process.wait()
        _log.error("a process of the crew has ended, starting it again", process=member.name, exit_code=code)
        await pause(clock, _AGAIN_S)
        with contextlib.suppress(StartUpError):  # it has told why, and is tried again
            await member.start()


async def _is_open(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def _end_all(members: list[_Member]) -> None:
    await asyncio.gather(*[member.end() for member in members])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
