"""One call, as a handler sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt


class BadInput(Exception):
    """The client's request is invalid: the call is answered 400 with this text, and not logged as a failure."""


class Headers(Mapping[str, str]):
    """A call's headers: names in any case; several values of one name are joined with a comma."""

    def __init__(self, items: Mapping[str, list[str]]) -> None:
        self._values: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}
        for name, values in items.items():
            self._names.setdefault(name.lower(), name)
            self._values.setdefault(name.lower(), []).extend(values)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"

    def all(self, name: str) -> list[str]:
        """All values of a name, in their order."""
        return list(self._values.get(name.lower(), ()))


class Call:
    """A request: one call, without the framing of its format.

    Attributes:
        is_plain: The caller is no client of HTTP, so the status of the answer is not its own.
    """

    def __init__(
        self,
        *,
        call_id: str = "",
        method: str = "",
        request_url: str = "",
        headers: Mapping[str, list[str]] | None = None,
        body: bytes = b"",
        deadline: str = "",
        call_type: str = "sync",
        is_plain: bool = False,
    ) -> None:
        self.call_id = call_id
        self.method = method
        self.request_url = request_url
        self.headers = Headers(headers or {})
        self.body = body
        self.deadline = deadline
        self.call_type = call_type
        self.is_plain = is_plain


class Answer:
    """An answer: a value for the body, a status and headers.

    Args:
        body: As a handler may return it: bytes, text, what JSON can hold, or an iterator of such pieces, which is
            answered as a stream.
        status: The HTTP status.
        headers: One value, or a list of them, for each name.
    """

    def __init__(
        self, body: Any = None, status: int = 200, headers: Mapping[str, str | list[str]] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers: dict[str, list[str]] = {}
        for name, value in (headers or {}).items():
            self.headers[name] = [value] if isinstance(value, str) else list(value)

    def __repr__(self) -> str:
        return f"Answer({self.body!r}, {self.status}, {self.headers!r})"


class Context:
    """The call that a handler answers, and what its answer says besides the body.

    Attributes:
        call_id: Names the call in logs and records.
        headers: The request's.
        method: The request's.
        request_url: The whole URL that was called.
        call_type: ``sync`` or ``async``.
        config: The function's configuration: its environment.
        app_name: The function's app.
        path: Where it is called, below the app.
        body: The request's body as it came.
    """

    def __init__(self, call: Call, config: Mapping[str, str]) -> None:
        self.call_id = call.call_id
        self.headers = call.headers
        self.method = call.method
        self.request_url = call.request_url
        self.call_type = call.call_type
        self.body = call.body
        self.config = config
        self.app_name = config.get("FN_APP_NAME", "")
        self.path = config.get("FN_PATH", "")
        self._deadline = call.deadline
        self._status: int | None = None
        self._headers: dict[str, list[str]] = {}

    @property
    def deadline(self) -> dt.datetime | None:
        """When the call has to be answered; ``None`` if nobody said."""
        if not self._deadline:
            return None
        import datetime as dt

        found = dt.datetime.fromisoformat(self._deadline.replace("Z", "+00:00"))
        return found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)  # noqa: UP017 - as old Pythons know it

    def remaining_s(self) -> float:
        """Seconds until the deadline, below 0 behind it; infinite without one."""
        deadline = self.deadline
        if deadline is None:
            return float("inf")
        import datetime as dt

        return (deadline - dt.datetime.now(tz=deadline.tzinfo)).total_seconds()

    def set_status(self, status: int) -> None:
        """Answer with this HTTP status (200 if never called)."""
        self._status = status

    def set_header(self, name: str, value: str) -> None:
        """Give the answer this header, in place of what was set before."""
        self._headers = {known: values for known, values in self._headers.items() if known.lower() != name.lower()}
        self._headers[name] = [value]

    def add_header(self, name: str, value: str) -> None:
        """Give the answer one more header."""
        self._headers.setdefault(name, []).append(value)

    def complete(self, answer: Answer) -> Answer:
        """Return an answer with what was set here; what the answer itself says counts more."""
        said = {name.lower() for name in answer.headers}
        answer.headers.update({name: value for name, value in self._headers.items() if name.lower() not in said})
        if answer.status == 200 and self._status is not None:
            answer.status = self._status
        return answer
