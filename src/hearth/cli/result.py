"""hearth result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from hearth.cli.fields import App, CallId
from hearth.cli.output import CommandError, Format, Output, show_bytes, show_json
from hearth.cli.progress import progress
from hearth.cli.session import session

if TYPE_CHECKING:
    import httpx

    from hearth.cli.client import Client

#: Seconds that a request waits for the end of a call.
_WAIT_S: Final = 30.0


def result(
    ctx: typer.Context,
    app: App,
    call_id: CallId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the call ends.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Print the answer of an async call.

    Exit status 1: the call has not ended or failed, or its answer's status is 400 or more.

    Examples:
        hearth result demo 01KBC4Z1S9NG8G00GZJ0000001 --wait
    """
    client = session(ctx).client()
    answer = ended_result(client, app, call_id) if wait else client.result(app, call_id, 0)
    if is_unfinished(answer):
        raise CommandError(f"call {call_id} is {call_status(answer)}; use --wait to wait until it ends")
    show_result(client, answer, app, call_id, output)


def ended_result(client: Client, app: str, call_id: str) -> httpx.Response:
    """Return the answer of a call, when it has ended."""
    with progress(f"waiting for call {call_id}"):
        while is_unfinished(answer := client.result(app, call_id, _WAIT_S)):
            pass
        return answer


def call_status(answer: httpx.Response) -> str:
    """Return the status of the call of a result."""
    from hearth.cli.client import CALL_STATUS

    return str(answer.headers[CALL_STATUS])


def is_unfinished(answer: httpx.Response) -> bool:
    """Return whether a call has no result yet; a function may answer 202 as well."""
    return answer.status_code == 202 and call_status(answer) in ("queued", "running")


def show_result(client: Client, answer: httpx.Response, app: str, call_id: str, output: Format) -> None:
    """Print a result; in JSON with the record of the call and its log.

    Raises:
        CommandError: The call failed, or its answer's status is 400 or more.
    """
    record, status = client.call(app, call_id), answer.status_code
    is_own = record["status"] == "success" or record.get("error") == f"function answered {status}"
    if output is Format.JSON:
        headers, log = dict(answer.headers.multi_items()), client.log_if_any(app, call_id).decode("utf-8", "replace")
        body = answer.content.decode("utf-8", "replace")
        show_json({**record, "status_code": status, "headers": headers, "body": body, "log": log})
    elif is_own:
        show_bytes([answer.content])
    if is_own and status < 400:
        return
    ended = f"ended as {record['status']}: {record.get('error') or 'no reason is recorded'}"
    problem = f"answered status {status}" if is_own else ended
    raise CommandError(f"call {call_id} {problem}; hearth logs get {app} {call_id} shows what it wrote")
