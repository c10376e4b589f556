"""TLS to a remote Engine, with connections that can be closed one way.

A function is given the end of its input by closing our direction of the connection while its answer is still to come.
The Engine reads the end of our direction of a TLS session as the end of stdin.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from hearth.aio.tls import Records, TlsTransport
from hearth.host import certificates
from hearth.models.errors import StartUpError


def client_context(folder: Path) -> ssl.SSLContext:
    """Return a TLS context made of Docker's three files: ``ca.pem``, ``cert.pem``, ``key.pem``.

    Raises:
        StartUpError: A file is missing or not valid.
    """
    try:
        return certificates.client_context(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    except OSError as exc:
        raise StartUpError(
            f"DOCKER_CERT_PATH={folder}: ca.pem, cert.pem and key.pem are needed there: {exc.strerror or exc}"
        ) from exc


async def open_tls(protocol: asyncio.Protocol, context: ssl.SSLContext, host: str, port: int) -> None:
    """Connect a protocol; it gets a transport that can write an end of file.

    Raises:
        OSError: Nobody listens, or who does cannot be trusted.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settled(failure: Exception | None) -> None:
        if ready.done():  # the wait for it was cancelled
            return
        if failure is None:
            ready.set_result(None)
        else:
            ready.set_exception(failure)

    transport = TlsTransport(protocol, context, settled, host=host)
    await loop.create_connection(lambda: Records(transport), host, port)
    try:
        await ready
    except BaseException:
        transport.abort()
        raise
