"""The log of a call as an answer, in the form that the client accepts."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from starlette.responses import Response, StreamingResponse

from hearth.models.errors import NotAcceptable
from hearth.models.log_reader import LogReader
from hearth.server import errors


async def log_response(reader: LogReader, accepts: Sequence[str], begin: bytes, end: bytes) -> Response:
    """Return the answer with a log.

    Args:
        reader: The log.
        accepts: The lines of the Accept header, in order.
        begin: The JSON before the text of the log.
        end: The JSON behind it.

    Raises:
        NotAcceptable: The client accepts neither JSON nor text.
        CallLogNotFound: There is no log.
    """
    try:
        form = _accepted(accepts)
    except NotAcceptable:
        async with aclosing(reader):
            await anext(reader, None)  # a reader that was never read keeps its connection
        raise
    if form == "text":
        return StreamingResponse(reader, headers={"Content-Type": "text/plain; charset=utf-8"})
    return StreamingResponse(_as_json(reader, begin, end), headers={"Content-Type": errors.JSON_TYPE})


def json_string(text: str) -> bytes:
    """Return a text as JSON."""
    return errors.escape(msgspec.json.encode(text))


async def _as_json(reader: LogReader, begin: bytes, end: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the answer while reading the log; bytes that are not UTF-8 are replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield begin + b'"'
    async with aclosing(reader):
        async for piece in reader:
            yield json_string(decoder.decode(piece))[1:-1]
    yield json_string(decoder.decode(b"", final=True))[1:] + end


def _accepted(lines: Sequence[str]) -> str:
    for line in lines or ["*/*"]:
        for wanted, form in (("application/json", "json"), ("text/plain", "text"), ("*/*", "json")):
            if wanted in line:
                return form
    raise NotAcceptable
