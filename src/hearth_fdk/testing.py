"""Call a handler in a test, without a platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hearth_fdk.context import BadInput, Call
from hearth_fdk.invoking import encode
from hearth_fdk.serving import Runner


class Result:
    """What a client would get.

    Attributes:
        status: The HTTP status.
        headers: Each name with all its values.
        body: The bytes.
    """

    def __init__(self, status: int, headers: dict[str, list[str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"Result({self.status}, {self.headers!r}, {self.body!r})"

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def call(
    handler: Callable[..., Any],
    body: Any = b"",
    headers: Mapping[str, str] | None = None,
    *,
    config: Mapping[str, str] | None = None,
    method: str = "POST",
    request_url: str = "http://localhost:8080/r/test/function",
    deadline: str = "",
    call_id: str = "00000000000000000000000000",
    raise_errors: bool = True,
) -> Result:
    """Call a handler as the platform would.

    Args:
        handler: Sync or async.
        body: Bytes or text as they are, anything else as JSON.
        headers: The request's.
        config: The function's environment.
        method: The request's.
        request_url: The request's.
        deadline: RFC 3339, as ``2026-01-02T03:04:05.000Z``; none if empty.
        call_id: The call's.
        raise_errors: False: what the handler raises is answered 500, as the platform's client would see it.
    """
    given = {name: [value] for name, value in (headers or {}).items()}
    raw, _ = encode(body)
    made = Call(call_id=call_id, method=method, request_url=request_url, headers=given, body=raw, deadline=deadline)
    with Runner(handler, config or {}) as runner:
        try:
            return Result(*(runner.result(made) if raise_errors else runner.answer(made)))
        except BadInput:
            return Result(*runner.answer(made))
