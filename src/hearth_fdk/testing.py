"""Call a handler in a test, without a platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hearth_fdk.context import BadInput, Call
from hearth_fdk.invoking import encode
from hearth_fdk.serving import Head, Reply, Runner, StreamFailed


class Result:
    """The answer that a client would get.

    Attributes:
        status: The HTTP status.
        headers: Each name with all its values.
        body: The bytes.
        pieces: The same as a stream brought them.
        is_broken: The handler failed in the middle of a stream: a client sees that the answer is cut off.
    """

    def __init__(self, status: int, headers: dict[str, list[str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.pieces = [body] if body else []
        self.is_broken = False

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
    output = _Output()
    with Runner(handler, config or {}) as runner:
        try:
            if raise_errors:
                runner.run(made, output)
            else:
                runner.answer(made, output)
        except BadInput:
            runner.answer(made, output)
        except StreamFailed as exc:
            raise (exc.__cause__ or exc) from None
    return output.result()


class _Output:
    """Keeps an answer."""

    def __init__(self) -> None:
        self._result = Result(0, {}, b"")

    def result(self) -> Result:
        self._result.body = b"".join(self._result.pieces)
        return self._result

    def whole(self, reply: Reply, method: str) -> None:
        self._result = Result(*reply)

    def begin(self, head: Head, method: str) -> bool:
        self._result = Result(*head, b"")
        return method != "HEAD"

    def piece(self, data: bytes) -> None:
        self._result.pieces.append(data)

    def end(self) -> None:
        pass

    def broken(self, reply: Reply, method: str) -> None:
        self._result.is_broken = True
