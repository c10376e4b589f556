"""hearth invoke, and its former name, hearth call."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from hearth import projects
from hearth.cli.fields import App, request_header, variable
from hearth.cli.fields import Path as RoutePath
from hearth.cli.output import CommandError, Format, Output, is_terminal, note, say, show_bytes, show_json
from hearth.cli.session import session
from hearth.models.route import clean_path

if TYPE_CHECKING:
    import httpx

    from hearth.cli.client import Client

#: A body up to this many bytes is sent with its length, a longer one piece by piece.
_WHOLE: Final = 1 << 20


def invoke(
    ctx: typer.Context,
    app: App,
    path: RoutePath = "/",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="TEXT",
            help="Body of the call, byte for byte; @FILE for the content of a file (default: stdin).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="HTTP method (default: POST with a body, else GET).", show_default=False)
    ] = "",
    content_type: Annotated[
        str,
        typer.Option(
            "--content-type",
            help="Content-Type of the body (default: from func.yaml in this folder, else application/json).",
            show_default=False,
        ),
    ] = "",
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "-e",
            metavar="NAME",
            help="Send this environment variable as a header. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="NAME: VALUE", help="Send this header. Can be repeated.", show_default=False
        ),
    ] = None,
    display_call_id: Annotated[bool, typer.Option("--display-call-id", help="Print the call ID to stderr.")] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Send the token as well; the code of the function can read it.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until an async call ends; print its answer.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Call a function with -d or stdin as the body; print its answer, or the ID of an async call.

    Exit status 1: the call failed, or its answer's status is 400 or more.

    Examples:
        hearth invoke demo /hello -d '{"name": "Ada"}'
        hearth invoke demo /hello -d @body.json -H 'X-Trace: 1'
        echo hello | hearth invoke demo /shout
        hearth invoke demo /report --wait
    """
    body = _stdin() if data is None else _given(data)
    sent = _headers(variables, headers)
    if content_type or not any(name.lower() == "content-type" for name, _ in sent):
        sent.append(("Content-Type", content_type or _content_type(path)))
    verb = method.upper() or ("GET" if body is None else "POST")
    client = session(ctx).client()
    with client.invoke(app, path, verb, sent, body, auth=auth) as answer:
        call_id = answer.headers.get("fn_call_id", "")
        if display_call_id:
            note(f"Call ID: {call_id}")
        if answer.status_code == 202 and _is_accepted(answer.read(), call_id):
            _accepted(client, _Accepted(app, call_id), wait, output)
        elif output is Format.JSON:
            _as_json(answer)
        elif answer.status_code >= 400:
            raise CommandError(_failure(answer.status_code, answer.read(), app, call_id))
        else:
            show_bytes(answer.iter_bytes())


def _given(data: str) -> bytes:
    """Return the body of ``--data``.

    Raises:
        OSError: Its file cannot be read.
    """
    return Path(data[1:]).read_bytes() if data.startswith("@") else os.fsencode(data)


def _stdin() -> bytes | Iterator[bytes] | None:
    """Return the body of the call; a terminal or an empty input gives none."""
    if sys.stdin is None or is_terminal(sys.stdin):
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
    """Return the settings of the function's own file, if the command is called in its folder."""
    if projects.find(Path()) is not None:
        with contextlib.suppress(projects.ProjectError):  # it may be half written; the function was deployed before
            func = projects.load(Path())
            if func.content_type and func.route_path == clean_path(path):
                return func.content_type
    return "application/json"


def _headers(variables: list[str] | None, headers: list[str] | None) -> list[tuple[str, str]]:
    """Return the headers that were given, in their order; a name may be given several times."""
    sent = [request_header(f"{name}:{variable(name)}", "-e") for name in variables or ()]
    return sent + [request_header(text) for text in headers or ()]


def _is_accepted(body: bytes, call_id: str) -> bool:
    """Return whether a 202 means that an async call was accepted; functions may answer 202 as well."""
    try:
        return bool(json.loads(body) == {"call_id": call_id})
    except ValueError:
        return False


class _Accepted(NamedTuple):
    """An async call that the server has accepted."""

    app: str
    id: str


def _accepted(client: Client, call: _Accepted, wait: bool, output: Format) -> None:
    """Print the ID of an async call; or wait for its end, and print its answer.

    Raises:
        CommandError: The call failed, or its answer's status is 400 or more.
    """
    if not wait:
        say(json.dumps({"call_id": call.id}) if output is Format.JSON else call.id)
        return
    from hearth.cli.result import ended_result, show_result

    show_result(client, ended_result(client, call.app, call.id), call.app, call.id, output)


def _told(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, Any]:
    return {"status_code": status, "headers": dict(headers), "body": _text(body)}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _as_json(answer: httpx.Response) -> None:
    show_json(_told(answer.status_code, answer.headers.multi_items(), answer.read()))
    if answer.status_code >= 400:
        raise typer.Exit(1)


def _failure(status: int, body: bytes, app: str, call_id: str) -> str:
    """Return the message of an error; a body that is not the server's error is the function's and goes to stdout."""
    from hearth.cli.client import error_message

    message = error_message(body)
    if not message and body:
        show_bytes([body])
    hint = f"; hearth logs get {app} {call_id} shows what it wrote" if call_id else ""
    return f"error calling function: status {status}{f': {message}' if message else ''}{hint}"
