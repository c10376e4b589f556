"""What all commands of one run share: which server, as whom, which registry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import typer

from hearth.cli import fn_home

if TYPE_CHECKING:
    from hearth.cli.client import Client


@dataclasses.dataclass(slots=True)
class Session:
    """The global options, each empty where it was not given; contexts fill the gaps."""

    context: str = ""
    api_url: str = ""
    registry: str = ""
    token: str = ""
    verbose: bool = False
    _client: Client | None = None

    def url(self) -> str:
        """The server's URL, without a slash at the end."""
        url = self.api_url or str(self._of_context(fn_home.API_URL) or fn_home.DEFAULT_API_URL)
        return (url if "://" in url else f"http://{url}").rstrip("/")

    def image_registry(self) -> str:
        """What goes before the names of images; may be empty."""
        return (self.registry or str(self._of_context(fn_home.REGISTRY) or "")).rstrip("/")

    def client(self) -> Client:
        """The client of the server; it is closed when the command ends."""
        from hearth.cli.client import Client

        if self._client is None:
            self._client = Client(self.url(), self.token)
        return self._client

    def close(self) -> None:
        """Let the server go."""
        if self._client is not None:
            self._client.close()

    def _of_context(self, key: str) -> Any:
        home = fn_home.FnHome()
        name = self.context or home.current()
        return home.get(name).get(key) if name else None


def session(ctx: typer.Context) -> Session:
    """The session of a command."""
    found: Session = ctx.ensure_object(Session)
    return found
