"""hearth invoke, and its name of old, hearth call."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hearth import projects
from hearth.cli.fields import App, variable
from hearth.cli.output import CommandError, Format, Output, note, say, show_bytes, show_json
from hearth.cli.session import session
from hearth.models.route import clean_path

if TYPE_CHECKING:
    import httpx

    from hearth.cli.client import Client

#: A body up to this many bytes is sent with its length, a longer one piece by piece.
_WHOLE: Final = 1 << 20
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)


def invoke(
    ctx: typer.Context,
    app: App,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The route's path, as /hello.")] = "/",
    method: Annotated[
        str, typer.Option("--method", help="POST with a body, else GET, unless given.", show_default=False)
    ] = "",
    content_type: Annotated[
        str,
        typer.Option(
            "--content-type",
            help="What the body is; as func.yaml here says, else application/json.",
            show_default=False,
        ),
    ] = "",
    variables: Annotated[
        list[str] | None, typer.Option("-e", metavar="NAME", help="Send this variable as a header.", show_default=False)
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME: VALUE", help="Send this header.", show_default=False),
    ] = None,
    display_call_id: Annotated[bool, typer.Option("--display-call-id", help="Tell the call's id on stderr.")] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Send the token as well; the function's code can read it.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until an async call has ended; print its log.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Call a function: stdin is the body, the answer goes to stdout. An async call's id is printed.

    Exit status 1 if the call fails or its answer's status is 400 or more.
    """
    body = _stdin()
    sent = {"Content-Type": content_type or _content_type(path), **_headers(variables, headers)}
    verb = method.upper() or ("GET" if body is None else "POST")
    client = session(ctx).client()
    with client.invoke(app, path, verb, sent, body, auth=auth) as answer:
        call_id = answer.headers.get("fn_call_id", "")
        if display_call_id:
            note(f"Call ID: {call_id}")
        if answer.status_code == 202:
            _accepted(client, app, answer.read(), wait, output)
        elif output is Format.JSON:
            _as_json(answer)
        elif answer.status_code >= 400:
            raise CommandError(_failure(answer.status_code, answer.read(), app, call_id))
        else:
            show_bytes(answer.iter_bytes())


def _stdin() -> bytes | Iterator[bytes] | None:
    """The body: none from a terminal or an empty input."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    stream = sys.stdin.buffer
    start = stream.read(_WHOLE)
    if len(start) < _WHOLE:
        return start or None

    def pieces() -> Iterator[bytes]:
        yield start
        yield from iter(lambda: stream.read(1 << 16), b"")

    return pieces()


def _content_type(path: str) -> str:
    """What the function's own file says, if the command is called in its folder."""
    if projects.find(Path()) is not None:
        with contextlib.suppress(projects.ProjectError):  # it may be half written; the function was deployed before
            func = projects.load(Path())
            if func.content_type and func.route_path == clean_path(path):
                return func.content_type
    return "application/json"


def _headers(variables: list[str] | None, headers: list[str] | None) -> dict[str, str]:
    found = {name: variable(name) for name in variables or ()}
    for text in headers or ():
        name, sign, value = text.partition(":")
        if not sign or not name.strip():
            raise typer.BadParameter(f"{text!r}: should be NAME: VALUE", param_hint="--header")
        found[name.strip()] = value.strip()
    return found


def _accepted(client: Client, app: str, body: bytes, wait: bool, output: Format) -> None:
    """An async call: tell its id, or wait for its end and tell its log."""
    call_id = str(json.loads(body)["call_id"])
    if not wait:
        say(json.dumps({"call_id": call_id}) if output is Format.JSON else call_id)
        return
    call = _ended(client, app, call_id)
    text = client.log(app, call_id)
    if output is Format.JSON:
        show_json({**call, "log": text})
    elif text:
        say(text.removesuffix("\n"))
    if call["status"] != "success":
        raise CommandError(f"call {call_id} ended as {call['status']}: {call.get('error') or 'no reason is recorded'}")


def _ended(client: Client, app: str, call_id: str) -> dict[str, Any]:
    looks = 0
    while (call := client.call(app, call_id))["status"] in ("queued", "running"):
        time.sleep(_PAUSES_S[min(looks, len(_PAUSES_S) - 1)])
        looks += 1
    return call


def _as_json(answer: httpx.Response) -> None:
    body = answer.read().decode("utf-8", "replace")
    show_json({"status_code": answer.status_code, "headers": dict(answer.headers), "body": body})
    if answer.status_code >= 400:
        raise typer.Exit(1)


def _failure(status: int, body: bytes, app: str, call_id: str) -> str:
    """What went wrong; a body that is no error of the server's is the function's, and goes to stdout."""
    from hearth.cli.client import error_message

    message = error_message(body)
    if not message and body:
        show_bytes([body])
    hint = f"; hearth logs get {app} {call_id} shows what it wrote" if call_id else ""
    return f"error calling function: status {status}{f': {message}' if message else ''}{hint}"
