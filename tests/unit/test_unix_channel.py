"""The socket of a container: when it is ready, what is refused as one, and how long a connection lasts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from hearth.aio.clock import SystemClock
from hearth.drivers.base import BadSocket, Container, EndedEarly, Exit, NeverListened, StartFailed, StreamClosed
from hearth.drivers.sockets import NAME, SocketFolders, UnixSocket
from hearth.host.inotify import FolderWatch

TWIN = "phonylsnr.sock"


class Program:
    """A container whose program is this test."""

    def __init__(self) -> None:
        self.exited: Exit | None = None
        self._callbacks: list[Callable[[Exit], None]] = []

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        self._callbacks.append(callback)

    def end(self, ended: Exit) -> None:
        self.exited = ended
        for callback in self._callbacks:
            callback(ended)


class World:
    """The folder of a container, and the channel to it."""

    def __init__(self, folder: Path, watch: FolderWatch, clock: Any, ready_s: float, look_again_s: float) -> None:
        self.folder = folder
        self.program = Program()
        self.channel = UnixSocket(folder, watch, clock, ready_s=ready_s, look_again_s=look_again_s)
        self.waiting = asyncio.ensure_future(self.channel.ready(cast(Container, self.program)))
        self._open: list[socket.socket] = []

    def listen(self, name: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.folder / name))
        made.listen()
        made.setblocking(False)
        self._open.append(made)
        return made

    def close(self) -> None:
        self.channel.close()
        for each in self._open:
            each.close()


@contextlib.asynccontextmanager
async def a_world(
    folder: Path, *, ready_s: float = 30.0, look_again_s: float = 1000.0, clock: Any = None
) -> AsyncIterator[World]:
    """A world in which whatever is noticed is noticed by inotify, unless it looks again soon."""
    watch = FolderWatch()
    (folder / "c").mkdir()
    world = World(folder / "c", watch, clock or SystemClock(), ready_s, look_again_s)
    await asyncio.sleep(0)  # it has looked once
    try:
        yield world
    finally:
        world.waiting.cancel()
        await asyncio.gather(world.waiting, return_exceptions=True)
        world.close()
        watch.close()


async def test_a_socket_of_its_own_makes_a_container_ready(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(world.folder / TWIN))
        made.listen()
        os.rename(world.folder / TWIN, world.folder / NAME)
        with made:
            await world.waiting
            assert world.channel.take() is not None


async def test_a_link_to_its_twin_makes_a_container_ready(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        listener = world.listen(TWIN)
        os.symlink(TWIN, world.folder / NAME)
        await world.waiting
        connection = world.channel.take()
        assert connection is not None
        await connection.writer.write(b"hello")
        with listener.accept()[0] as theirs:
            assert theirs.recv(10) == b"hello"
        connection.close()


async def test_a_socket_that_does_not_listen_yet_is_tried_again(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(world.folder / TWIN))
        os.symlink(TWIN, world.folder / NAME)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not world.waiting.done()
        made.listen()
        with made:
            await world.waiting


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{outside}", "out of its folder"),
        ("../outside.sock", "out of its folder"),
        ("./phonylsnr.sock", "out of its folder"),
        ("..", "out of its folder"),
        ("nothing", "No such file"),
        ("lsnr.sock", "not a socket"),  # itself
        ("second", "not a socket"),  # a link to a link
        ("file", "not a socket"),
    ],
)
async def test_a_link_to_anything_but_a_socket_beside_it_is_refused(tmp_path: Path, target: str, says: str) -> None:
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "outside.sock"))
        outside.listen()
        outside.setblocking(False)
        async with a_world(tmp_path) as world:
            world.listen(TWIN)
            (world.folder / "file").write_text("x")
            os.symlink(tmp_path / "outside.sock", world.folder / "second")
            os.symlink(target.format(outside=tmp_path / "outside.sock"), world.folder / NAME)
            with pytest.raises(BadSocket, match=says):
                await world.waiting
        with pytest.raises(BlockingIOError):  # nobody has connected to it
            outside.accept()


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
async def test_what_is_no_socket_is_refused(tmp_path: Path, kind: str) -> None:
    async with a_world(tmp_path) as world:
        place = world.folder / NAME
        if kind == "file":
            place.write_text("x")
        elif kind == "folder":
            place.mkdir()
        else:
            os.mkfifo(place)
        with pytest.raises(BadSocket, match="not a socket"):
            await world.waiting


async def test_a_link_that_is_changed_later_leads_nowhere_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "outside.sock"))
        outside.listen()
        outside.setblocking(False)
        async with a_world(tmp_path) as world:
            world.listen(TWIN)
            os.symlink(TWIN, world.folder / NAME)
            await world.waiting
            os.unlink(world.folder / NAME)
            os.symlink(tmp_path / "outside.sock", world.folder / NAME)
            with pytest.raises(StreamClosed, match="out of its folder"):
                world.channel.connect()
        with pytest.raises(BlockingIOError):
            outside.accept()


async def test_what_is_connected_is_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function changes the link between the check and the connection."""
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "outside.sock"))
        outside.listen()
        outside.setblocking(False)
        async with a_world(tmp_path) as world:
            listener = world.listen(TWIN)
            os.symlink(TWIN, world.folder / NAME)
            await world.waiting
            listener.accept()[0].close()
            fstat = os.fstat

            def look_then_change(descriptor: int) -> os.stat_result:
                seen = fstat(descriptor)
                if stat.S_ISSOCK(seen.st_mode):
                    for name in (NAME, TWIN):
                        os.unlink(world.folder / name)
                        os.symlink(tmp_path / "outside.sock", world.folder / name)
                return seen

            monkeypatch.setattr(os, "fstat", look_then_change)
            connection = world.channel.connect()
            monkeypatch.undo()
            listener.accept()[0].close()
            connection.close()
        with pytest.raises(BlockingIOError):
            outside.accept()


async def test_a_container_that_ends_before_it_listens_is_told_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.program.end(Exit(3))
        with pytest.raises(EndedEarly, match="container exit code 3"):
            await world.waiting


async def test_a_program_that_cannot_be_executed_is_the_fault_of_its_image(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        world.program.end(Exit(127, start_fault="no such file"))
        with pytest.raises(StartFailed, match="no such file") as failed:
            await world.waiting
        assert failed.value.image_fault


async def test_a_container_that_never_listens_is_given_up(tmp_path: Path) -> None:
    async with a_world(tmp_path, ready_s=0.01) as world:
        with pytest.raises(NeverListened, match=r"no /tmp/iofs/lsnr.sock within 0.01 s"):
            await world.waiting


async def test_without_inotify_the_folder_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderWatch, "add", lambda *_: None)
    async with a_world(tmp_path, look_again_s=0.001) as world:
        world.listen(NAME)
        await world.waiting


class HandClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []

    def monotonic(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[..., Any], *arguments: Any) -> Any:
        self.timers.append((when, callback, arguments))
        return asyncio.get_running_loop().call_soon(lambda: None)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now_s]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_s]
        for _, callback, arguments in due:
            callback(*arguments)


async def test_a_connection_is_kept_for_a_second_and_then_closed(tmp_path: Path) -> None:
    clock = HandClock()
    async with a_world(tmp_path, clock=clock) as world:
        listener = world.listen(NAME)
        await world.waiting
        theirs = listener.accept()[0]
        theirs.setblocking(False)
        kept = world.channel.take()
        assert kept is not None
        clock.pass_s(0.9)
        world.channel.keep(kept)
        clock.pass_s(0.9)
        assert world.channel.take() is kept
        world.channel.keep(kept)
        clock.pass_s(1.0)
        assert world.channel.take() is None
        with theirs:
            assert theirs.recv(1) == b""


@pytest.mark.parametrize(("late", "surplus"), [(b"late", True), (b"", False)], ids=["bytes", "the end"])
async def test_a_connection_on_which_something_came_is_not_used(tmp_path: Path, late: bytes, surplus: bool) -> None:
    async with a_world(tmp_path) as world:
        listener = world.listen(NAME)
        await world.waiting
        with listener.accept()[0] as theirs:
            theirs.sendall(late)
        assert world.channel.take() is None
        assert world.channel.had_surplus is surplus
        with pytest.raises(BlockingIOError):
            listener.accept()
        world.channel.connect().close()
        listener.accept()[0].close()


async def test_between_calls_bytes_are_handed_on_and_the_end_is_not(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        listener = world.listen(NAME)
        await world.waiting
        seen: list[bytes] = []
        world.channel.watch(seen.append)
        with listener.accept()[0] as theirs:
            theirs.sendall(b"late")
            while not seen:
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert seen == [b"late"]
        assert world.channel.take() is None


async def test_folders_belong_to_one_run_of_a_node(tmp_path: Path) -> None:
    def folders(node: str) -> SocketFolders:
        return SocketFolders(node, SystemClock(), parent=tmp_path, ready_s=1, mode=0o711)

    left, other = folders("n1"), folders("n2")
    for each in (left, other):
        each.open()
    (left.root / "old").mkdir()
    made = folders("n1")
    made.open()
    channel = made.make("c", owner=None, mode=0o700)
    assert not left.root.exists()
    assert other.root.exists()
    assert (made.root.stat().st_mode & 0o777, channel.folder.stat().st_mode & 0o777) == (0o711, 0o700)
    (channel.folder / "file").write_text("of the function")
    await channel.remove()
    assert list(made.root.iterdir()) == []
    for each in (made, other):
        each.remove()
        each.close()
    assert list(tmp_path.iterdir()) == []
