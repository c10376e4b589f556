"""The ways to a server: over TCP, with TLS or without, or through a Unix socket of this machine."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path
from typing import Any, Final

import httpx

from hearth.cli.local_server import is_local, socket_path
from hearth.cli.output import CommandError

#: The server's name in requests through a socket, where no name leads to it.
_LOCALHOST: Final = "http://localhost"


@dataclasses.dataclass(frozen=True, slots=True)
class TlsOptions:
    """The options of connections to servers with TLS, each ``None`` where it was not given.

    Attributes:
        ca: Authorities to trust, in PEM, instead of the usual ones.
        cert: The certificate to show, in PEM; ``key`` is its private key.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context of a client; ``None`` for the usual one.

        Raises:
            CommandError: A file cannot be used.
        """
        if self.ca is None and self.cert is None:
            return None
        from hearth.host.certificates import client_context

        try:
            return client_context(self.ca, self.cert, self.key)
        except OSError as exc:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
            raise CommandError(
                f"{files}: {exc.strerror or exc}; --tls-ca, --tls-cert and --tls-key name PEM files"
            ) from exc


def base_url(url: str) -> str:
    """Return the beginning of the URLs of requests to a server."""
    return url if socket_path(url) is None else _LOCALHOST


def connection_options(url: str, tls: TlsOptions | None = None, *, asynchronous: bool = False) -> dict[str, Any]:
    """Return the options of an httpx client of a server. It uses no proxy to a server of this machine.

    Args:
        url: Of the server; ``unix:/path`` for a socket.
        tls: For a server with TLS.
        asynchronous: The options are for an ``AsyncClient``.
    """
    path = socket_path(url)
    if path is not None:
        made = httpx.AsyncHTTPTransport if asynchronous else httpx.HTTPTransport
        return {"transport": made(uds=str(path), verify=_trusting_nobody()), "trust_env": False}
    options: dict[str, Any] = {"mounts": {"http://": None, "https://": None}} if is_local(url) else {}
    if url.startswith("http://"):
        options["verify"] = _trusting_nobody()
    elif url.startswith("https://") and tls is not None and (context := tls.context()) is not None:
        options["verify"] = context
    return options


def _trusting_nobody() -> ssl.SSLContext:
    """Return a context for a server without TLS; it refuses every certificate.

    httpx asks for one in any case. To load the usual authorities takes 15 ms.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def tls_failure(exc: BaseException) -> str:
    """Return why a connection failed, if that was because of TLS, and what to do; else an empty text."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted: {seen.verify_message}; name its authority with --tls-ca (FN_TLS_CA)"
            )
        if isinstance(seen, ssl.SSLError) and "ALERT" in str(seen.reason):
            return f"it refused the connection: {seen.reason}; --tls-cert and --tls-key name a certificate to show"
        seen = seen.__cause__ or seen.__context__
    return ""
