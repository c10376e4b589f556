"""The headers by which a trace crosses nodes: B3, and baggage as OpenTracing sends it (operations specification 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Final
from urllib.parse import quote, unquote

from opentelemetry.trace import SpanContext, TraceFlags

SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_B3: Final = b"x-b3-"
_BAGGAGE: Final = b"ot-baggage-"
_HEXADECIMAL: Final = frozenset("0123456789abcdefABCDEF")


def read_b3(
    headers: Iterable[tuple[bytes, bytes]],
) -> tuple[SpanContext | None, SpanContext | None, dict[str, str]]:
    """Return the span that the client of a request has started, its parent, and the baggage of the client."""
    b3: dict[str, str] = {}
    baggage: dict[str, str] = {}
    for key, value in headers:
        if key.startswith(_B3):
            b3[key[len(_B3) :].decode("latin-1")] = value.decode("latin-1")
        elif key.startswith(_BAGGAGE):
            inherited = key[len(_BAGGAGE) :].decode("latin-1").replace("-", "_")
            baggage[inherited] = unquote(value.decode("latin-1"))
    trace, client = _number(b3.get("traceid", ""), 16, 32), _number(b3.get("spanid", ""), 16)
    if not trace or not client:
        return None, None, baggage
    is_sampled = b3.get("sampled", "1") not in ("0", "false") or b3.get("flags") == "1"
    context = SpanContext(trace, client, is_remote=True, trace_flags=SAMPLED if is_sampled else _UNSAMPLED)
    parent = _number(b3.get("parentspanid", ""), 16)
    return context, SpanContext(trace, parent, is_remote=True, trace_flags=SAMPLED) if parent else None, baggage


def write_b3(
    headers: MutableMapping[str, str], context: SpanContext, parent: SpanContext | None, baggage: Mapping[str, str]
) -> None:
    """Add a span, its parent and its baggage to the headers of a request."""
    headers["x-b3-traceid"] = f"{context.trace_id:032x}"
    headers["x-b3-spanid"] = f"{context.span_id:016x}"
    if parent is not None:
        headers["x-b3-parentspanid"] = f"{parent.span_id:016x}"
    headers["x-b3-sampled"] = "1" if context.trace_flags.sampled else "0"
    for key, value in baggage.items():
        headers[_BAGGAGE.decode() + key] = quote(value, safe="/")


def _number(text: str, *digits: int) -> int:
    """Return a hexadecimal number with one of these numbers of digits; 0 for any other text."""
    return int(text, 16) if len(text) in digits and _HEXADECIMAL.issuperset(text) else 0
