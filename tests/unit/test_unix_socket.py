"""A Unix socket of a node: private, never in the place of a live one, and gone at the end."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.umask import umask

from hearth.models.errors import StartUpError
from hearth.nodes.unix_socket import unix_listener

SERVE = """
import pathlib, sys
from hearth.nodes.unix_socket import unix_listener
with unix_listener(pathlib.Path(sys.argv[1]), 0o600):
    print("serves", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hearth.sock"


def greeted(path: Path) -> bytes:
    """What a client reads that connects."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return client.recv(10)


@pytest.mark.parametrize("mode", [0o600, 0o660])
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_its_mode_is_the_one_asked_for_whatever_the_umask_is(path: Path, mode: int, mask: int) -> None:
    with umask(mask), unix_listener(path, mode):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_it_is_never_open_to_others_not_even_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def look(*_: object) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr(Path, "chmod", look)
    with umask(0), unix_listener(path, 0o600):
        assert modes == [0o600], "before anything corrects it"


def test_clients_connect_and_it_is_gone_at_the_end(path: Path) -> None:
    with unix_listener(path, 0o600) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with listener.accept()[0] as accepted:
            accepted.sendall(b"hello")
            assert client.recv(10) == b"hello"
    assert list(path.parent.iterdir()) == []


def test_the_socket_of_a_node_that_was_killed_is_replaced(path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serves\n"
        with pytest.raises(StartUpError, match="in use by another node"), unix_listener(path, 0o600):
            pass
        process.kill()
    assert path.is_socket()
    with unix_listener(path, 0o600) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()
    assert not path.exists()


def test_the_socket_of_another_program_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        clients = []
        for _ in range(3):  # also one whose backlog is full
            with pytest.raises(StartUpError, match="another program listens there"), unix_listener(path, 0o600):
                pass
            clients.append(client := socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with other.accept()[0] as accepted:
            accepted.close()
        assert path.is_socket()
        for client in clients:
            client.close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_socket_is_left_alone(path: Path, make: object) -> None:
    make(path)  # type: ignore[operator]
    before = path.lstat()
    with pytest.raises(StartUpError, match="not a socket"), unix_listener(path, 0o600):
        pass
    assert os.path.samestat(path.lstat(), before)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_dead_socket_of_another_user_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    os.chown(path, 54321, 54321)
    with pytest.raises(StartUpError, match="belongs to user 54321"), unix_listener(path, 0o600):
        pass
    assert path.is_socket()


def test_a_lock_that_is_a_link_is_not_followed(path: Path) -> None:
    target = path.with_name("target")
    path.with_name("hearth.sock.lock").symlink_to(target)
    with pytest.raises(StartUpError, match="choose another path"), unix_listener(path, 0o600):
        pass
    assert not target.exists()


def test_the_successor_s_socket_outlives_the_one_that_was_removed_by_hand(path: Path) -> None:
    with unix_listener(path, 0o600):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            successor.listen()
            found = path.lstat()
    assert os.path.samestat(path.lstat(), found)


@pytest.mark.parametrize("name", ["x" * 200, "missing/hearth.sock"])
def test_a_path_that_takes_no_socket_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartUpError, match=r"^unix socket .*choose a"), unix_listener(tmp_path / name, 0o600):
        pass
