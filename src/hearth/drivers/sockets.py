"""The socket on which a container takes calls (contract ``http-stream``): its folder, its readiness, its connections.

A container gets a folder of its own, which it sees as ``/tmp/iofs``. There it makes the socket ``lsnr.sock``, or, as
Fn's kits do, a symbolic link of that name to a socket with another name beside it.

The folder is written by the function, which may be hostile: a link may lead to a socket of the machine, and may be
replaced at any moment. So each step works on what was opened, never on a name that was checked before: the entry is
opened without following links, and the connection goes through the descriptor of the very socket that was looked at.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import fcntl
import functools
import os
import shutil
import socket
import stat
import struct
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from hearth.aio.clock import Clock, pause
from hearth.drivers.base import (
    BadSocket,
    ByteWriter,
    Channel,
    Container,
    DriverUnavailable,
    EndedEarly,
    NeverListened,
    StartFailed,
    StreamClosed,
)
from hearth.drivers.streams import PipeReader, PipeWriter, StreamBuffer
from hearth.host.inotify import FolderWatch

#: Where the container sees its folder, and what its environment says of the socket.
FOLDER: Final = "/tmp/iofs"
NAME: Final = "lsnr.sock"
LISTENER: Final = "FN_LISTENER"
#: Memory, where there is this folder: it counts as the function's own, and its control group limits it.
_IN_MEMORY: Final = Path("/dev/shm")
#: Seconds a connection may be idle between two calls. Some of Fn's kits fail after longer ones.
_IDLE_S: Final = 1.0
#: Seconds that a function has to end a call that was given up, where others run beside it. Fn gives a container as
#: long to freeze or thaw.
_LEAVE_S: Final = 5.0
#: Seconds between two looks at a folder of which nothing is heard, and at a socket that takes no connection yet.
LOOK_AGAIN_S: Final = 0.2
_CONNECT_AGAIN_S: Final = 0.01
_INT: Final = struct.Struct("i")
_NO_BYTES: Final = bytes(_INT.size)


class SocketReader(PipeReader):
    """The bytes that a container sends on a connection."""

    __slots__ = ()

    def end_writing(self) -> None:
        """Send the end of the stream, although another descriptor holds the socket."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as same:  # it may be closed already
            same.shutdown(socket.SHUT_WR)


class SocketWriter(PipeWriter):
    """The bytes that a container is sent on a connection."""

    __slots__ = ()

    def unread(self) -> int | None:
        """Return 0 if the container has read everything; ``None`` if not: the kernel does not tell how much."""
        if self._queue or self._fd < 0:
            return None
        (left,) = _INT.unpack(fcntl.ioctl(self._fd, termios.TIOCOUTQ, _NO_BYTES))
        return None if left else 0


class Crowded(StreamClosed):
    """The container takes no further connection at present: it has to accept those that wait."""


class Connection(Protocol):
    """A connection to a container."""

    @property
    def reader(self) -> StreamBuffer:
        """Return what the container sends."""

    @property
    def writer(self) -> ByteWriter:
        """Return where it is sent something."""

    @property
    def was_reset(self) -> bool:
        """True if the container has closed the connection without reading all that it was sent."""

    def leave(self) -> None:
        """Send the end of the request, whole or not, and nothing more; what the container sends still comes."""

    def close(self) -> bytes:
        """Close it; return what had come and nobody has read. Idempotent."""


class SocketConnection:
    """A :class:`Connection` over a socket, which it owns."""

    __slots__ = ("reader", "writer")

    def __init__(self, connected: socket.socket) -> None:
        self.reader, self.writer = SocketReader(), SocketWriter()
        other = os.dup(connected.fileno())
        self.reader.connect(connected.detach())
        self.writer.connect(other)

    @property
    def was_reset(self) -> bool:
        """True if the container has closed the connection without reading all that it was sent."""
        return self.reader.was_reset

    def leave(self) -> None:
        """Send the end of the request, whole or not, and nothing more; what the container sends still comes."""
        self.writer.lose()
        self.reader.end_writing()

    def close(self) -> bytes:
        """Close it; return what had come and nobody has read. Idempotent."""
        self.reader.watch(None)
        with contextlib.suppress(OSError):
            self.reader.drain()
        self.reader.close()
        self.writer.lose()
        return self.reader.read_nowait() or b""


class Listener(Channel):
    """A channel over connections to a container that listens.

    The container has one connection at a time, unless calls share it: then one for each of them. Between two calls a
    connection is kept for a second at most.

    Attributes:
        had_surplus: The container sent something on a connection between two calls.
        is_shared: Several calls may run at once, each on a connection of its own.
    """

    def __init__(self, clock: Clock) -> None:
        self.had_surplus = False
        self.is_shared = False
        self._clock = clock
        self._kept: list[tuple[Connection, float]] = []  # newest last
        self._left: dict[Connection, asyncio.TimerHandle] = {}
        self._on_left: Callable[[bool], None] = _ignore
        self._timer: asyncio.TimerHandle | None = None
        self._sink: Callable[[bytes], None] | None = None

    @property
    def left(self) -> int:
        """Return how many calls were given up that the function may still run."""
        return len(self._left)

    def share(self, on_left: Callable[[bool], None]) -> None:
        """Let several calls use the container at once.

        Args:
            on_left: Called when the function has ended a call that was given up; with false if it did not in time.
        """
        self.is_shared = True
        self._on_left = on_left

    @property
    def answers(self) -> Listener:
        """Return this: answers come from its connections."""
        return self

    @abc.abstractmethod
    def connect(self) -> Connection:
        """Return a new connection. Never suspends.

        Raises:
            Crowded: It does not take one now.
            StreamClosed: The container does not take one.
        """

    async def connect_soon(self) -> Connection:
        """Return a new connection. Where calls share the container, wait while it has to accept others.

        Raises:
            StreamClosed: The container does not take one.
        """
        while True:
            try:
                return self.connect()
            except Crowded:
                if not self.is_shared:
                    raise
                await pause(self._clock, _CONNECT_AGAIN_S)

    def take(self) -> Connection | None:
        """Return a connection that was kept, if nothing has come on it."""
        while self._kept:
            connection, _ = self._kept.pop()
            if self._sink is not None:
                connection.reader.watch(None)
            if connection.reader.quiet():
                return connection
            data = connection.close()
            self.had_surplus = self.had_surplus or bool(data and not data.isspace())
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next call: nothing is under way on it."""
        connection.reader.watch(None)
        now = self._clock.monotonic()
        self._kept.append((connection, now))
        if self._sink is not None:
            connection.reader.watch(functools.partial(self._arrived, connection))
        if self._timer is None:
            self._timer = self._clock.call_at(now + _IDLE_S, self._look_at_idleness)

    def leave(self, connection: Connection) -> None:
        """Show the function that nobody waits for its answer, and wait until it has ended the call.

        What it still sends is dropped: the connection serves no other call.
        """
        due = self._clock.monotonic() + _LEAVE_S
        self._left[connection] = self._clock.call_at(due, self._end_left, connection, False)
        connection.leave()
        connection.reader.watch(functools.partial(self._drop_answer, connection))

    def rest(self) -> None:
        """Close connections that no call uses: a kit that was paused may close them as too old."""
        for connection, _ in self._kept:
            connection.close()
        self._kept.clear()

    def close(self) -> None:
        """Close what is open; the container is gone or never was. Idempotent."""
        self._sink = None  # it holds the container, which holds this
        if self._timer is not None:
            self._timer.cancel()
        self._on_left = _ignore
        for connection, timer in self._left.items():
            timer.cancel()
            connection.close()
        self._left.clear()
        self.rest()

    def _look_at_idleness(self) -> None:
        """Close connections that are too old: one timer per container, not per call."""
        self._timer = None
        now = self._clock.monotonic()
        old = [connection for connection, since in self._kept if now >= since + _IDLE_S]
        self._kept = [(connection, since) for connection, since in self._kept if now < since + _IDLE_S]
        for connection in old:
            connection.close()
        if self._kept:
            self._timer = self._clock.call_at(self._kept[0][1] + _IDLE_S, self._look_at_idleness)

    def _drop_answer(self, connection: Connection, data: bytes) -> None:
        if not data:
            self._end_left(connection, True)

    def _end_left(self, connection: Connection, in_time: bool) -> None:
        timer = self._left.pop(connection, None)
        if timer is not None:
            timer.cancel()
            connection.close()
            self._on_left(in_time)

    # -- between calls ------------------------------------------------------------------------------

    def watch(self, sink: Callable[[bytes], None] | None) -> None:
        """Hand what comes between calls to ``sink``; ``None`` stops."""
        self._sink = sink
        for connection, _ in tuple(self._kept):
            connection.reader.watch(None if sink is None else functools.partial(self._arrived, connection))

    def unseen(self) -> object:
        """Return a true value if something waits in the kernel."""
        return any(connection.reader.unseen() for connection, _ in self._kept)

    def _arrived(self, connection: Connection, data: bytes) -> None:
        """Pass bytes on; a connection that the container has closed is none: the next call makes another.

        Nor is one on which something came beside other calls: one of them might get the rest of it.
        """
        if data and self._sink is not None:
            self._sink(data)
        if not data or self.is_shared:
            self._kept = [one for one in self._kept if one[0] is not connection]
            connection.close()


def _ignore(in_time: bool) -> None:
    """Ignore the end of a call: the container is gone, or runs one at a time."""


class UnixSocket(Listener):
    """A channel over a socket in a folder of the container.

    Args:
        folder: Of the container, as this machine sees it.
        watch: Watches folders.
        ready_s: Seconds from the start within which the container has to listen.
        look_again_s: Seconds between two looks at a folder of which nothing is heard.
    """

    def __init__(
        self,
        folder: Path,
        watch: FolderWatch,
        clock: Clock,
        *,
        ready_s: float,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        super().__init__(clock)
        self.folder = folder
        self._ready_s = ready_s
        self._look_again_s = look_again_s
        self._changed = asyncio.Event()
        self._watch = watch
        self._watched = watch.add(folder, self._changed.set)

    def __repr__(self) -> str:
        return f"<UnixSocket {self.folder} connections={len(self._kept)}>"

    async def remove(self) -> None:
        """Close what is open, and remove the folder: the container is gone. Idempotent."""
        self.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)  # it may hold many files

    def close(self) -> None:
        """Close what is open, and remove the folder of a container that never was. Idempotent."""
        self._stop_watching()
        super().close()
        with contextlib.suppress(OSError):  # it is gone already, or not empty
            self.folder.rmdir()

    # -- its start ------------------------------------------------------------------------------

    async def ready(self, container: Container) -> None:
        """Wait until the container takes a connection, and keep that for the first call."""
        container.on_exit(lambda _: self._changed.set())
        try:
            async with asyncio.timeout(self._ready_s):
                while not self._is_listening(container):
                    pause_s = _CONNECT_AGAIN_S if (self.folder / NAME).is_symlink() else self._look_again_s
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._changed.wait()
        except TimeoutError as exc:
            raise NeverListened(f"no {FOLDER}/{NAME} within {self._ready_s:g} s") from exc
        finally:
            self._stop_watching()

    def _is_listening(self, container: Container) -> bool:
        self._changed.clear()
        if (ended := container.exited) is not None:
            if ended.start_fault:
                raise StartFailed(ended.start_fault, image_fault=True)
            raise EndedEarly(f"container exit code {ended.code} before it made {FOLDER}/{NAME}")
        try:
            connection = self._try_to_connect()
        except Crowded:
            return False
        if connection is None:
            return False
        self.keep(connection)
        return True

    def _stop_watching(self) -> None:
        if self._watched is not None:
            self._watch.remove(self._watched)
            self._watched = None

    # -- its connections ------------------------------------------------------------------------------

    def connect(self) -> Connection:
        """Return a new connection. Never suspends.

        Raises:
            Crowded: It does not take one now.
            StreamClosed: The container does not take one.
        """
        try:
            connection = self._try_to_connect()
        except (BadSocket, OSError) as exc:
            raise StreamClosed(str(exc)) from exc
        if connection is None:
            raise StreamClosed("the function takes no connection")
        return connection

    def _try_to_connect(self) -> Connection | None:
        """Return a connection; ``None`` if there is no socket, or nobody listens on it yet.

        Raises:
            Crowded: It takes none now.
            BadSocket: What is there is not a socket of this container.
            OSError: The system refuses.
        """
        with contextlib.ExitStack() as stack:
            folder = _opened(self.folder, os.O_DIRECTORY, None, stack)
            try:
                found = _opened(NAME, 0, folder, stack)
            except FileNotFoundError:
                return None
            if stat.S_ISLNK(os.fstat(found).st_mode):
                found = _opened_target(found, folder, stack)
            if not stat.S_ISSOCK(os.fstat(found).st_mode):
                raise BadSocket(f"{FOLDER}/{NAME} is not a socket")
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.setblocking(False)
            try:
                made.connect(f"/proc/self/fd/{found}")
                return SocketConnection(made)
            except ConnectionRefusedError:  # not listening yet
                return None
            except BlockingIOError as exc:
                raise Crowded("the function accepts no connection") from exc
            finally:
                made.close()


def _opened(path: Path | str, flags: int, folder: int | None, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _opened_target(link: int, folder: int, stack: contextlib.ExitStack) -> int:
    target = os.readlink("", dir_fd=link)
    if "/" in target or target in (".", ".."):
        raise BadSocket(f"{FOLDER}/{NAME} is a link out of its folder")
    try:
        return _opened(target, 0, folder, stack)
    except OSError as exc:
        raise BadSocket(f"{FOLDER}/{NAME} is a link to {target}: {exc.strerror}") from exc


class SocketFolders:
    """The folders of a node's containers, and the watch of them.

    Args:
        node: Names this node among those of the machine.
        parent: Where to make them; ``None``: in memory where possible, else where temporary files are.
        ready_s: Seconds within which a container has to listen.
        mode: Of the folder that holds them all. Its owner is this process; others need the right to pass through it if
            they make mounts.
    """

    def __init__(self, node: str, clock: Clock, *, parent: Path | None, ready_s: float, mode: int) -> None:
        self._prefix = f"hearth-sockets-{node}-"
        self._parent = parent
        self._clock = clock
        self._ready_s = ready_s
        self._mode = mode
        self._watch = FolderWatch()
        self._root: Path | None = None

    def __repr__(self) -> str:
        return f"<SocketFolders {self._root}>"

    def open(self) -> None:
        """Remove what an earlier run left, and make the folder of all folders. Blocks shortly.

        Raises:
            DriverUnavailable: It cannot be made.
        """
        parent = (self._parent or _default_parent()).absolute()
        try:
            for left in parent.glob(f"{self._prefix}*"):
                if left.lstat().st_uid == os.geteuid():
                    shutil.rmtree(left, ignore_errors=True)
            self._root = Path(tempfile.mkdtemp(prefix=self._prefix, dir=parent))
            self._root.chmod(self._mode)
        except OSError as exc:
            raise DriverUnavailable(f"FN_IOFS_PATH={parent}: {exc.strerror or exc}") from exc

    @property
    def root(self) -> Path:
        """Return the folder of all folders."""
        assert self._root is not None
        return self._root

    def make(self, name: str, *, owner: int | None, mode: int) -> UnixSocket:
        """Make the folder of a container.

        Args:
            name: The id of the container.
            owner: The user that it belongs to; ``None``: the one of this process.
            mode: Who may write to it.

        Raises:
            OSError: It cannot be made.
        """
        folder = self.root / name
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, owner, owner)
        folder.chmod(mode)
        return UnixSocket(folder, self._watch, self._clock, ready_s=self._ready_s)

    def remove(self) -> None:
        """Remove all of them. Blocks shortly. Idempotent."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def close(self) -> None:
        """Watch no folder any more. Idempotent."""
        self._watch.close()


def _default_parent() -> Path:
    usable = _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK | os.X_OK)
    return _IN_MEMORY if usable else Path(tempfile.gettempdir())
