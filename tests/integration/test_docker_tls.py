"""A remote Engine that wants certificates."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.docker_images import python_image
from tests.support.engine import PrivateEngine, private_engine

from hearth.drivers.base import ContainerSpec, DriverUnavailable
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.tls import client_context
from hearth.models.errors import StartUpError
from hearth.models.ids import encode

PROBE = Path(__file__).parent.parent / "functions" / "probe.py"
_numbers = itertools.count(os.getpid() << 32)


def certificates(folder: Path) -> Path:
    """An authority with a server's and a client's certificate, under the names that docker gives them."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, key, certificate in (("127.0.0.1", "server-key.pem", "server-cert.pem"), ("me", "key.pem", "cert.pem")):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", key, "-out", "request.pem")
        signed = ("x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial")
        openssl(*signed, "-in", "request.pem", "-extfile", "names", "-out", certificate)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture(scope="module")
def port(listener: socket.socket) -> int:
    number: int = listener.getsockname()[1]
    return number


@pytest.fixture(scope="module")
def engine(docker: None, folder: Path, listener: socket.socket) -> Iterator[PrivateEngine]:
    options = ["--tlsverify", f"--tlscacert={folder}/ca.pem", f"--tlscert={folder}/server-cert.pem"]
    with private_engine(*options, f"--tlskey={folder}/server-key.pem", listener=listener) as private:
        private.copy_image(python_image(PROBE))
        yield private


@pytest.mark.parametrize("size", [0, 1, 10 << 20])
async def test_what_goes_in_comes_back_after_the_end_of_the_input(
    engine: PrivateEngine, folder: Path, port: int, size: int
) -> None:
    driver = DockerDriver(f"tcp://127.0.0.1:{port}", node="tls", instance="now", tls=client_context(folder))
    await driver.open()
    image = python_image(PROBE)
    spec = ContainerSpec(id=encode(next(_numbers)), image=image, env={"PROBE": "echo"}, memory_mib=64)
    container = await driver.prepare(spec)
    await container.start()
    data = os.urandom(1024) * (size // 1024) or b"x" * size

    async def feed() -> None:
        for start in range(0, len(data), 65536):
            await container.channel.stdin.write(data[start : start + 65536])
        container.channel.stdin.close()

    writing = asyncio.ensure_future(feed())
    received = []
    while chunk := await container.channel.stdout.read():
        received.append(chunk)
    await writing
    assert b"".join(received) == data
    assert (await container.wait()).code == 0
    await container.remove()
    await driver.close()


async def test_a_stranger_is_not_trusted(engine: PrivateEngine, port: int, tmp_path: Path) -> None:
    strangers = client_context(certificates(tmp_path / "theirs"))
    driver = DockerDriver(f"tcp://127.0.0.1:{port}", node="tls", instance="now", tls=strangers)
    with pytest.raises(DriverUnavailable, match="certificate verify failed"):
        await driver.open()
    await driver.close()


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(StartUpError, match=r"DOCKER_CERT_PATH=.*ca\.pem, cert\.pem and key\.pem"):
        client_context(tmp_path)
