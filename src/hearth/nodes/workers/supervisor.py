"""The parent of the workers of a node: starts them, lends them memory, and restarts what dies.

It holds their listeners, so that no connection is lost while a worker is away: another one stands in for it. It serves
nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hearth.aio.background import Background
from hearth.aio.clock import SystemClock, pause
from hearth.authorize.admin_token import admin_token
from hearth.drivers.local import bundle
from hearth.host import private_files
from hearth.models.errors import StartUpError
from hearth.models.function import Amount
from hearth.nodes.capacity import capacity
from hearth.nodes.drivers import decide
from hearth.nodes.member_process import MemberProcess
from hearth.nodes.ports import listen, own_url
from hearth.nodes.workers import messages
from hearth.nodes.workers.broker import Broker, Outgoing
from hearth.nodes.workers.worker import OWNER, READY, Post, command, socket_of
from hearth.settings import FULL, RUNNER, Settings, environment
from hearth.telemetry.logs import get_logger

_MIB: Final = 1 << 20
#: Seconds before the next attempt to start a worker that did not start.
_AGAIN_S: Final = 1.0
_LOOPBACK: Final = "127.0.0.1"

_log = get_logger(__name__)


async def serve_workers(settings: Settings, count: int, announce: Callable[[str, str], None]) -> None:
    """Run a node with several workers until SIGINT or SIGTERM; a second signal aborts running calls.

    SIGHUP has all workers read their certificates again. SIGUSR2 replaces them, one after the other.

    Args:
        settings: The settings of the node.
        count: The number of workers, at least 2.
        announce: Called with the URL and the driver when the node accepts requests.

    Raises:
        StartUpError: A worker does not start.
    """
    if settings.node_type != FULL:
        raise StartUpError(f"FN_NODE_TYPE={settings.node_type}: --workers is for full nodes; leave it out")
    place = settings.admin_place
    if isinstance(place, tuple) and not place[1]:
        raise StartUpError(
            f"FN_ADMIN_BIND={settings.admin_bind}: name a port; --workers needs the same at each restart"
        )
    total = capacity(settings)
    driver = await decide(settings)
    token = await asyncio.to_thread(admin_token, settings)
    with _sockets(settings, count) as (folder, listeners, ports):
        port = listeners[0].getsockname()[1]
        common = {
            "FN_RUNNER_TOKEN": settings.runner_token.get_secret_value() or secrets.token_hex(),
            "FN_ADMIN_TOKEN": token,
            "FN_DATA_DIR": str(settings.data),
            "FN_BIND": settings.address,
            "FN_PORT": str(port),
            "FN_DRIVER": driver,
            "FN_MAX_TOTAL_MEMORY": str(total.memory_mib * _MIB),
            "FN_MAX_TOTAL_CPU": str(total.cpu_milli),
        }
        variables = [common | more for more in await asyncio.to_thread(_variables, settings, folder, count)]
        crew = _Crew(folder, listeners, ports, variables, total)
        loop = asyncio.get_running_loop()
        async with crew:
            for number in (signal.SIGINT, signal.SIGTERM):  # until here a signal interrupts the start
                loop.add_signal_handler(number, crew.halt)
            loop.add_signal_handler(signal.SIGUSR2, crew.replace)
            if settings.tls_cert is not None:
                loop.add_signal_handler(signal.SIGHUP, crew.signal_all, signal.SIGHUP)
            announce(own_url(settings.address, port, "http" if settings.tls_cert is None else "https"), driver)
            await crew.halting.wait()


@contextlib.contextmanager
def _sockets(settings: Settings, count: int) -> Iterator[tuple[Path, list[socket.socket], list[int]]]:
    """Yield the folder for the sockets of the workers, their listeners, and a port for the ids of each."""
    folder = settings.data / "workers"
    with contextlib.ExitStack() as stack:
        address = settings.address
        first = stack.enter_context(listen(address, settings.port))  # alone: no other server shares this port
        port = first.getsockname()[1]
        first.close()
        listeners = [stack.enter_context(listen(address, port, is_shared=True)) for _ in range(count)]
        kept = [stack.enter_context(socket.create_server((_LOOPBACK, 0))) for _ in range(count - 1)]
        shutil.rmtree(folder, ignore_errors=True)
        private_files.make_folder(folder)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder, listeners, [port, *(one.getsockname()[1] for one in kept)]


def _variables(settings: Settings, folder: Path, count: int) -> Iterator[dict[str, str]]:
    """Yield what the environment of each worker has of its own. Blocks shortly."""
    yield {"FN_NODE_TYPE": FULL, "FN_DRAIN_DELAY_S": "0"}  # it retires while the others drain
    for number in range(1, count):
        data = settings.data / f"worker-{number}"
        private_files.make_folder(data)
        if not (data / "bundles").exists():
            bundle.make_folder(settings.bundles)
            (data / "bundles").symlink_to(settings.bundles)
        yield {
            "FN_NODE_TYPE": RUNNER,
            "FN_RUNNER_API_URL": f"unix:{socket_of(folder, OWNER)}",
            "FN_DATA_DIR": str(data),
            **{"FN_SECRET_KEY": "", "FN_SECRET_KEY_FILE": ""},  # only worker 0 decrypts secrets
        }


class _State(enum.Enum):
    """The life of a worker, of which one task is in charge."""

    STARTING = "starting"
    SERVING = "serving"
    ENDING = "ending"  # it has its signal
    ENDED = "ended"


class _Member:
    """One worker: its process, and its connection.

    Attributes:
        state: Where it is.
        writer: Leads to it while it is connected.
        serving: Set while it serves.
    """

    def __init__(self, number: int, variables: dict[str, str]) -> None:
        self.number = number
        self.state = _State.ENDED
        self.writer: asyncio.StreamWriter | None = None
        self.process = MemberProcess(f"worker {number}", (), environment(**variables), READY)
        self.hearing: asyncio.Task[None] | None = None
        self.serving = asyncio.Event()

    def __repr__(self) -> str:
        return f"<worker {self.number} {self.state.value}>"

    def enter(self, state: _State) -> None:
        """Change the state."""
        self.state = state
        if state is _State.SERVING:
            self.serving.set()
        else:
            self.serving.clear()

    def send(self, message: messages.OfSupervisor) -> None:
        """Tell it something; one that has ended hears nothing."""
        if self.writer is not None:
            self.writer.write(messages.encode([message]))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process lives."""
        if self.process.process is not None and self.process.process.returncode is None:
            self.process.process.send_signal(number)


class _Crew:
    """All workers of a node. An async context manager: entering it starts them, leaving it stops them.

    Attributes:
        halting: Set when the node has to stop.
    """

    def __init__(
        self,
        folder: Path,
        listeners: list[socket.socket],
        ports: list[int],
        variables: list[dict[str, str]],
        total: Amount,
    ) -> None:
        self.halting = asyncio.Event()
        self._folder = folder
        self._listeners = listeners
        self._ports = ports
        self._members = [_Member(number, found) for number, found in enumerate(variables)]
        self._broker = Broker(total)
        self._clock = SystemClock()
        self._background = Background(lambda exc: _log.error("the supervisor failed", exc_info=exc))
        self._watches: list[asyncio.Task[None]] = []
        self._replacing = asyncio.Lock()

    async def __aenter__(self) -> _Crew:
        try:
            owner, *others = self._members
            await self._start(owner)
            await asyncio.gather(*[self._start(member) for member in others])
        except BaseException:
            await self._stop()
            raise
        self._watches = [self._background.run(self._watch(member)) for member in self._members]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()

    def halt(self) -> None:
        """Stop the node; at once if it is called again."""
        if self.halting.is_set():
            _log.warning("Halting at once...")
            self.signal_all(signal.SIGTERM)
        else:
            _log.info("Halting...")
            self.halting.set()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all workers."""
        for member in self._members:
            member.signal(number)

    def replace(self) -> None:
        """Replace all workers, one after the other, in the background."""
        self._background.run(self._replace())

    async def _replace(self) -> None:
        async with self._replacing:
            for member in self._members:
                if self.halting.is_set():
                    return
                await member.serving.wait()
                _log.info("replacing a worker", worker=member.number)
                self._end(member)
                await member.serving.wait()

    def _end(self, member: _Member) -> None:
        """Tell a worker to end; another one stands in for it first."""
        member.enter(_State.ENDING)
        self._cover()
        member.signal(signal.SIGTERM)

    async def _watch(self, member: _Member) -> None:
        """Start a worker again whenever it ends."""
        while True:
            assert member.process.process is not None
            code = await member.process.process.wait()
            if member.state is not _State.ENDING:
                _log.error("a worker ended, starting it again", worker=member.number, exit_code=code)
            await self._ended(member)
            while member.state is not _State.SERVING:
                try:
                    await self._start(member)
                except (StartUpError, OSError) as exc:
                    if isinstance(exc, OSError):  # else the worker has printed the reason
                        _log.error("a worker cannot be started", worker=member.number, error=str(exc))
                    await self._ended(member)
                    await pause(self._clock, _AGAIN_S)

    async def _start(self, member: _Member) -> None:
        """Start a worker, and wait until it serves.

        Raises:
            StartUpError: It ended instead; it has printed the reason.
        """
        member.enter(_State.STARTING)
        ours, theirs = socket.socketpair()
        with theirs:
            listeners = [listener.fileno() for listener in self._listeners]
            number = member.number
            post = Post(number, str(self._folder), theirs.fileno(), listeners, self._ports[number])
            member.process.command = command(post)
            member.process.pass_fds = (theirs.fileno(), *listeners)
            reader, member.writer = await asyncio.open_unix_connection(sock=ours)
            member.hearing = self._background.run(self._hear(member, reader))
            await member.process.start(theirs.close)
        member.enter(_State.SERVING)
        self._cover()

    async def _ended(self, member: _Member) -> None:
        """Take note that a process has ended: what it was lent is held until its containers are gone."""
        member.enter(_State.ENDED)
        self._cover()
        if member.hearing is not None:
            await asyncio.wait([member.hearing])  # its error is logged
        if member.writer is not None:
            member.writer.close()
            member.writer = None
        self._tell(self._broker.lost(member.number))

    def _cover(self) -> None:
        """Have one worker that serves accept the connections of those that do not."""
        serving = [member for member in self._members if member.state is _State.SERVING]
        for away in self._members:
            is_away = away.state is not _State.SERVING
            for member in serving:
                member.send(messages.StandIn(away.number, is_away and member is serving[0]))

    async def _hear(self, member: _Member, reader: asyncio.StreamReader) -> None:
        """Have the broker answer a worker, until its connection ends."""
        with contextlib.suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):
                self._tell(self._answer(member.number, messages.decode_of_worker(line)))

    def _answer(self, number: int, message: messages.OfWorker) -> list[Outgoing]:
        match message:
            case messages.Join():
                return self._broker.join(number)
            case messages.Cleaned():
                return self._broker.cleaned(number)
            case messages.Aims():
                return self._broker.aim(number, message.aims)
            case messages.GiveBack():
                return self._broker.give_back(number, message.loan, is_sync=message.is_sync)
            case messages.Leave():
                return self._broker.leave(number)

    def _tell(self, found: list[Outgoing]) -> None:
        for number, message in found:
            self._members[number].send(message)

    async def _stop(self) -> None:
        """Stop the workers: first those that need worker 0, which stands in for them until they have ended."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        owner, *others = self._members
        owner.send(messages.Retire())
        await asyncio.gather(*[self._stop_one(member) for member in others])
        await self._stop_one(owner)
        await self._background.cancel()
        for member in self._members:
            if member.writer is not None:
                member.writer.close()

    async def _stop_one(self, member: _Member) -> None:
        if member.state is not _State.ENDING:  # a second signal would break off its calls
            self._end(member)
        if member.process.process is not None:
            await member.process.process.wait()
