"""hearth login and logout: keep the token of a server."""

from __future__ import annotations

import sys

import typer

from hearth.cli.credentials import StoredCredentials, address
from hearth.cli.output import CommandError, say
from hearth.cli.session import session
from hearth.telemetry import redaction


def login(ctx: typer.Context) -> None:
    """Store the token of a server, read from a prompt or from stdin; later commands send it to that server only.

    Examples:
        hearth --api-url https://fn.example.com login
        hearth login < token.txt
    """
    current = session(ctx)
    url = current.url()
    address(url)  # before somebody types a token
    token = _read()
    redaction.hide({token})
    current.token = token
    current.client().check_token()
    StoredCredentials().put(url, token)
    say(f"Token for {url} stored")


def logout(ctx: typer.Context) -> None:
    """Delete the stored token of a server.

    Examples:
        hearth --api-url https://fn.example.com logout
    """
    url = session(ctx).url()
    if not StoredCredentials().remove(url):
        raise CommandError(f"{url}: no token is stored")
    say(f"Token for {url} deleted")


def _read() -> str:
    """Return a token that no list of processes and no history of a shell shows.

    Raises:
        CommandError: There is none.
    """
    if sys.stdin is None:
        raise CommandError("stdin is closed; give the token on stdin, or at the prompt of a terminal")
    text = typer.prompt("Token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    token = str(text).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError("the token must be one line of printable ASCII characters without blanks")
    return token
