"""Spans that are exported: each is made with what it takes to tell of it later, and no more (specification 3).

A call has nine of them. So whatever else there is to do for one (its tags, the collector's form) is done where they are
sent, and nothing at all for those of a trace that its client does not want recorded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, MutableMapping
from typing import Final, Literal
from urllib.parse import quote, unquote

from hearth.clock import wall_ns
from hearth.telemetry import tracing
from hearth.telemetry.tracing import Relation

Kind = Literal["internal", "server", "client"]

_B3: Final = b"x-b3-"
_BAGGAGE: Final = b"ot-baggage-"
_HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")
_FOLLOWS: Final = ("opentracing.ref_type", "follows_from")


class Span:
    """A span that runs, or has ended.

    Attributes:
        trace: Of 128 bits.
        id: Of 64 bits, as ``parent``, which is 0 where there is none.
        shared: Its client has begun it, and reports its times.
        follows: Its parent has caused it, and does not wait for it.
        is_recorded: It is to be sent.
        baggage: What its children inherit; never changed, for they share it.
        begun_ns: Since the epoch, as ``ended_ns``.
    """

    __slots__ = (
        "_send",
        "_tags",
        "baggage",
        "begun_ns",
        "ended_ns",
        "follows",
        "id",
        "is_recorded",
        "kind",
        "name",
        "parent",
        "shared",
        "trace",
    )

    def __init__(
        self, send: Callable[[Span], None], name: str, kind: Kind, trace: int, parent: int, baggage: dict[str, str]
    ) -> None:
        self._send = send
        self._tags: dict[str, str] | None = None
        self.name = name
        self.kind: Kind = kind
        self.trace = trace
        self.id = random.getrandbits(64) or 1
        self.parent = parent
        self.baggage = baggage
        self.follows = self.shared = False
        self.is_recorded = True
        self.begun_ns = wall_ns()
        self.ended_ns = 0

    def tag(self, key: str, value: str) -> None:
        """Tell more of it."""
        if self._tags is None:
            self._tags = {}
        self._tags[key] = value

    def end(self, error: BaseException | None) -> None:
        """It is over."""
        if self.is_recorded:
            self.ended_ns = wall_ns()
            if error is not None and isinstance(error, Exception):
                self.tag("error", str(error) or type(error).__name__)
            self._send(self)

    def tags(self) -> dict[str, str]:
        """All that is told of it."""
        found = {key: value for key, value in self.baggage.items() if key.startswith("fn")}
        if self.follows:
            found[_FOLLOWS[0]] = _FOLLOWS[1]
        return found | self._tags if self._tags else found


class SpanTracer:
    """Makes spans.

    Args:
        send: Takes those that have ended; never waits.
    """

    def __init__(self, send: Callable[[Span], None]) -> None:
        self._send = send

    def start(self, name: str, app: str, path: str, relation: Relation, present: tracing.Live | None) -> Span:
        """A new span."""
        kind: Kind = "client" if name.startswith("hybrid_client_") else "internal"
        if relation is Relation.ROOT or not isinstance(present, Span):
            made = Span(self._send, name, kind, _new_trace(), 0, {})
        else:
            made = Span(self._send, name, kind, present.trace, present.id, present.baggage)
            made.follows = relation is Relation.FOLLOWS
            made.is_recorded = present.is_recorded
        known = made.baggage
        if (app and known.get("fn_appname") != app) or (path and known.get("fn_path") != path):
            made.baggage = {**known, **({"fn_appname": app} if app else {}), **({"fn_path": path} if path else {})}
        return made

    def serve(self, name: str, url_path: str, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        """The span of a request; the one that its client has begun, if the headers tell of one."""
        b3: dict[str, str] = {}
        baggage: dict[str, str] = {}
        for key, value in headers:
            if key.startswith(_B3):
                b3[key[len(_B3) :].decode("latin-1")] = value.decode("latin-1")
            elif key.startswith(_BAGGAGE):
                inherited = key[len(_BAGGAGE) :].decode("latin-1").replace("-", "_")
                baggage[inherited] = unquote(value.decode("latin-1"))
        made = Span(self._send, name, "server", 0, 0, baggage)
        made.tag("path", url_path)
        trace, client = _number(b3.get("traceid", ""), 16, 32), _number(b3.get("spanid", ""), 16)
        if not trace or not client:
            made.trace = _new_trace()
            return made
        made.trace = trace
        if b3.get("sampled", "1") in ("0", "false") and b3.get("flags") != "1":
            made.is_recorded = False
            made.parent = client
            return made
        made.shared = True
        made.id, made.parent = client, _number(b3.get("parentspanid", ""), 16)
        return made

    def inject(self, present: tracing.Live, headers: MutableMapping[str, str]) -> None:
        """Tell a server of the present span."""
        if not isinstance(present, Span):
            return
        headers["x-b3-traceid"] = f"{present.trace:032x}"
        headers["x-b3-spanid"] = f"{present.id:016x}"
        if present.parent:
            headers["x-b3-parentspanid"] = f"{present.parent:016x}"
        headers["x-b3-sampled"] = "1" if present.is_recorded else "0"
        for key, value in present.baggage.items():
            headers[_BAGGAGE.decode() + key] = quote(value, safe="/")


def _new_trace() -> int:
    return random.getrandbits(128) or 1


def _number(text: str, *digits: int) -> int:
    """A hexadecimal number of so many digits; 0 if it is none."""
    return int(text, 16) if len(text) in digits and _HEXADECIMAL.issuperset(text) else 0
