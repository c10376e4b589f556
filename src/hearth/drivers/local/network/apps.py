"""The networks of apps: created for an app's first container, repaired, and removed when they are idle.

One task owns each network::

    namespace created -> helper started -> ready -> helper ended unexpectedly -> helper started again -> ...
                                                                     cancelled: everything is removed
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.drivers.local.child import Child
from hearth.drivers.local.network import addresses
from hearth.drivers.local.network.addresses import Network
from hearth.drivers.local.network.namespace import (
    Helper,
    Joined,
    Namespace,
    NetworkFailed,
    Tools,
    make,
    start_helper,
)
from hearth.models.addresses import refused
from hearth.telemetry.logs import get_logger

#: Seconds for which an app keeps its network after its last container; a helper takes a few MiB.
_IDLE_S: Final = 60.0
#: Idle networks that are kept, those used last: clients may call thousands of apps within a minute, and a helper takes
#: about 5 MiB that nobody reserves.
MOST_IDLE: Final = 32
#: Seconds to wait before a helper is started again, doubled with each failure in a row.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
#: From linux/rtnetlink.h: listeners get a message when an IPv4 address or route of the machine changes.
_ADDRESS_CHANGES: Final = 0x10 | 0x40

_log = get_logger(__name__)
T = TypeVar("T")


class AppNetworks:
    """The networks of the apps that have containers.

    Args:
        allowed: The private networks that functions may reach.
        clock: The clock of the waits.
        hidden: Descriptors that helpers must not inherit.

    Attributes:
        tools: The programs that set up networks, once it is open.
    """

    tools: Tools

    def __init__(self, allowed: Sequence[Network], clock: Clock, hidden: Sequence[int] = ()) -> None:
        self.allowed = tuple(allowed)
        self.clock = clock
        self.hidden = hidden
        self.own: frozenset[Network] = frozenset()
        self._networks: dict[str, _AppNetwork] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}  # the one used last comes last
        self.background = Background(_log_unexpected)
        self._changes: socket.socket | None = None
        self._has_changed = False
        self._update: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<AppNetworks {len(self._networks)}>"

    async def open(self) -> None:
        """Check that networks can be created here.

        Raises:
            NetworkFailed: They cannot; the message says why.
        """
        self.tools = Tools.find()
        try:
            self.own = await asyncio.to_thread(addresses.own, self.allowed)
            self._watch_addresses()
        except OSError as exc:
            raise NetworkFailed(f"the addresses of this machine are not known: {exc}") from exc
        await self.acquire("")
        self.release("")

    async def close(self) -> None:
        """Remove all networks."""
        if self._changes is not None:
            asyncio.get_running_loop().remove_reader(self._changes)
            self._changes.close()
            self._changes = None
        for app in list(self._networks):
            self._drop(app)
        if self._update is not None:
            self._update.cancel()
        await self.background.join()

    async def acquire(self, app: str) -> Joined:
        """Return what a container joins to use the network of its app.

        Call :meth:`release` when the container is gone, but not after a failed or cancelled call.

        Raises:
            NetworkFailed: The network cannot be set up.
        """
        network = self._networks.get(app)
        if network is None:
            network = self._networks[app] = _AppNetwork(self, app)
        network.containers += 1
        self._stay(app)
        try:
            namespace = await asyncio.shield(network.ready)
        except NetworkFailed:
            if self._networks.get(app) is network:  # the next container tries again
                self._drop(app)
            raise
        except asyncio.CancelledError:
            self._leave(app, network)
            raise
        return namespace.paths

    def release(self, app: str) -> None:
        """Note that one container of the app is gone."""
        if (network := self._networks.get(app)) is not None:
            self._leave(app, network)

    def _leave(self, app: str, network: _AppNetwork) -> None:
        network.containers -= 1
        if not network.containers and self._networks.get(app) is network:
            self._stay(app)
            self._idle[app] = self.clock.call_at(self.clock.monotonic() + _IDLE_S, self._drop, app)
            if len(self._idle) > MOST_IDLE:
                self._drop(next(iter(self._idle)))

    def _stay(self, app: str) -> None:
        """Cancel the timer that removes the app's network."""
        if (timer := self._idle.pop(app, None)) is not None:
            timer.cancel()

    def _drop(self, app: str) -> None:
        self._stay(app)
        self._networks.pop(app).give_up()

    # -- the machine's addresses ----------------------------------------------------------------------------------

    def _watch_addresses(self) -> None:
        """Listen for new addresses of the machine: its services listen there, too."""
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._changes.bind((0, _ADDRESS_CHANGES))
        asyncio.get_running_loop().add_reader(self._changes, self._address_changed)

    def _address_changed(self) -> None:
        assert self._changes is not None
        with contextlib.suppress(BlockingIOError, OSError):  # overrun: something has changed
            while self._changes.recv(65536):
                pass
        self._has_changed = True
        if self._update is None or self._update.done():
            self._update = self.background.run(self._update_addresses())

    async def _update_addresses(self) -> None:
        while self._has_changed:  # also during a look
            self._has_changed = False
            try:
                self.own |= await asyncio.to_thread(addresses.own, self.allowed)
            except OSError as exc:
                _log.error("functions may reach a new address of this machine", error=str(exc))
            for network in list(self._networks.values()):
                await network.refuse_new()


class _AppNetwork:
    """One app's network, and the task that owns it.

    Attributes:
        containers: The number of containers that use it.
        ready: The namespace when functions can use it, or the error if it failed.
    """

    def __init__(self, owner: AppNetworks, app: str) -> None:
        self.containers = 0
        self.ready: asyncio.Future[Namespace] = asyncio.get_running_loop().create_future()
        self._owner = owner
        self._app = app
        self._namespace: Namespace | None = None
        self._refused: frozenset[Network] = frozenset()
        self._task = owner.background.run(self._run())

    def __repr__(self) -> str:
        return f"<_AppNetwork {self._app!r} containers={self.containers} ready={self.ready.done()}>"

    def give_up(self) -> None:
        """End the network: its task removes everything."""
        self._fail(NetworkFailed("it is given up"))  # a task that is cancelled before it starts cannot
        self._task.cancel()

    async def refuse_new(self) -> None:
        """Block the addresses that the machine has got since the namespace was created."""
        while self._namespace is not None and (new := self._owner.own - self._refused):
            namespace, self._refused = self._namespace, self._refused | new
            try:
                await asyncio.to_thread(namespace.refuse, self._owner.tools, new)
            except NetworkFailed as exc:
                _log.error("functions may reach a new address of this machine", app_id=self._app, error=str(exc))

    async def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            try:
                await self._make(stack)
                await self._keep_connected()
            except NetworkFailed as exc:
                self._fail(exc)
            except Exception as exc:  # the boundary of this task: callers must not wait forever
                _log.error("the network of an app failed", app=self._app, exc_info=exc)
                self._fail(NetworkFailed(str(exc)))
            finally:
                self._namespace = None

    async def _make(self, stack: contextlib.ExitStack) -> None:
        self._refused = self._owner.own
        refused_now = [*refused(self._owner.allowed), *sorted(self._refused)]
        namespace = await _in_thread(lambda: make(self._owner.tools, refused_now), Namespace.close)
        stack.callback(namespace.close)
        self._namespace = namespace
        await self.refuse_new()

    async def _keep_connected(self) -> None:
        """Start the helper, and start it again when it ends or cannot be started: descriptors may have run out.

        A namespace that containers may join stays, so that its path never leads to another one.

        Raises:
            Exception: The helper has never worked.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            started = self._owner.clock.monotonic()
            try:
                await self._connected()
            except Exception as exc:
                if not self.ready.done():
                    raise
                _log.error("the network of an app is down", app=self._app, error=str(exc))
            if self._owner.clock.monotonic() - started > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            await pause(self._owner.clock, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _connected(self) -> None:
        """Run one helper until it ends."""
        namespace = self._namespace
        assert namespace is not None
        owner = self._owner
        helper = await _in_thread(lambda: start_helper(owner.tools, namespace, owner.hidden), _end)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            child = Child(helper.pid, ended.set_result)
        except OSError:  # the helper is killed
            os.close(helper.lifeline)
            raise
        try:
            if not self.ready.done():
                self.ready.set_result(namespace)
            code = await asyncio.shield(ended)
            _log.warning("the helper of an app's network ended, starting it again", app=self._app, exit_code=code)
        finally:
            os.close(helper.lifeline)
            if not ended.done():
                child.kill()
                await ended

    def _fail(self, reason: NetworkFailed) -> None:
        if not self.ready.done():
            self.ready.set_exception(reason)
            self.ready.exception()  # retrieved, even if nobody waits any more


def _log_unexpected(error: BaseException) -> None:
    _log.error("the network of an app failed", exc_info=error)


def _end(helper: Helper) -> None:
    """Kill a helper that nobody waits for."""
    os.close(helper.lifeline)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(helper.pid, signal.SIGKILL)
    os.waitpid(helper.pid, 0)


async def _in_thread(work: Callable[[], T], undo: Callable[[T], None]) -> T:
    """Work in a thread; if the wait is cancelled, undo the work when it is done."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except OSError as exc:
        raise NetworkFailed(str(exc)) from exc
    except asyncio.CancelledError:
        with contextlib.suppress(NetworkFailed, OSError):
            await asyncio.to_thread(undo, await running)
        raise
