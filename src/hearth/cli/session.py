"""The server, token and registry that all commands of one run share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hearth.cli import fn_home
from hearth.telemetry import redaction

if TYPE_CHECKING:
    from hearth.cli.client import Client
    from hearth.cli.connecting import TlsOptions


@dataclasses.dataclass(slots=True)
class Session:
    """The global options, each empty where it was not given; contexts fill the gaps."""

    context: str = ""
    api_url: str = ""
    registry: str = ""
    token: str = ""
    tls: TlsOptions | None = None
    verbose: bool = False
    _client: Client | None = None

    def url(self) -> str:
        """Return the server's URL without a slash at the end."""
        url = self.api_url or str(self._of_context(fn_home.API_URL) or fn_home.DEFAULT_API_URL)
        return _with_scheme(url)

    def image_registry(self) -> str:
        """Return the prefix of the names of images; may be empty."""
        return (self.registry or str(self._of_context(fn_home.REGISTRY) or "")).rstrip("/")

    def client(self, url: str = "") -> Client:
        """Return the client of the server; it is closed when the command ends.

        Args:
            url: Instead of what the options and the context say; at the first use only.
        """
        from hearth.cli.client import Client
        from hearth.cli.credentials import StoredCredentials

        if self._client is None:
            server = _with_scheme(url) if url else self.url()
            if token := self.token or StoredCredentials().get(server):
                redaction.hide({token})
            self._client = Client(server, token, self.tls)
        return self._client

    def close(self) -> None:
        """Let the server go."""
        if self._client is not None:
            self._client.close()

    def _of_context(self, key: str) -> Any:
        home = fn_home.FnHome()
        name = self.context or home.current()
        return home.get(name).get(key) if name else None


def from_options(
    *,
    context: str = "",
    api_url: str = "",
    registry: str = "",
    token: str = "",
    tls_ca: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    verbose: bool = False,
    **_others: object,
) -> Session:
    """Return the session of the global options, by their names as parameters; others are ignored."""
    tls = None
    if tls_ca or tls_cert or tls_key:
        from hearth.cli.connecting import TlsOptions

        tls = TlsOptions(tls_ca, tls_cert, tls_key)
    return Session(context=context, api_url=api_url, registry=registry, token=token, tls=tls, verbose=verbose)


def _with_scheme(url: str) -> str:
    if url.startswith("unix:"):
        return url
    return (url if "://" in url else f"http://{url}").rstrip("/")


def session(ctx: typer.Context) -> Session:
    """Return the session of a command."""
    found: Session = ctx.ensure_object(Session)
    return found
