"""Heads of answers that wait a moment for their bodies."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hearth.server.transport import HeadHolder

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Sent:
    """A transport that notes what it is to do."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def abort(self) -> None:
        self.done.append("aborted")

    def is_closing(self) -> bool:
        return bool(self.done) and isinstance(self.done[-1], str)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return f"the {name}" if name == "peername" else default


@pytest.fixture
async def sent() -> Sent:
    return Sent()


@pytest.fixture
async def transport(sent: Sent) -> HeadHolder:
    return HeadHolder(cast(asyncio.Transport, sent), asyncio.get_running_loop())


async def test_a_head_goes_with_the_body_that_follows_at_once(sent: Sent, transport: HeadHolder) -> None:
    transport.write(HEAD)
    assert sent.done == []
    transport.write(b"ok")
    transport.write(b"more")
    await asyncio.sleep(0)
    assert sent.done == [HEAD + b"ok", b"more"]


async def test_a_head_that_nothing_follows_is_sent_by_the_next_turn(sent: Sent, transport: HeadHolder) -> None:
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert sent.done == [HEAD]
    transport.write(b"late")
    assert sent.done == [HEAD, b"late"]


async def test_an_empty_body_sends_the_head(sent: Sent, transport: HeadHolder) -> None:
    transport.write(HEAD)
    transport.write(b"")
    assert sent.done == [HEAD]


async def test_a_large_body_is_not_copied(sent: Sent, transport: HeadHolder) -> None:
    body = b"x" * (1 << 20)
    transport.write(HEAD)
    transport.write(body)
    assert sent.done[0] == HEAD
    assert sent.done[1] is body


async def test_what_is_held_is_sent_before_the_end(sent: Sent, transport: HeadHolder) -> None:
    transport.write(HEAD)
    transport.close()
    assert sent.done == [HEAD, "closed"]
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert sent.done == [HEAD, "closed"]


async def test_what_is_held_is_dropped_where_all_is_broken_off(sent: Sent, transport: HeadHolder) -> None:
    transport.write(HEAD)
    transport.abort()
    await asyncio.sleep(0)
    assert sent.done == ["aborted"]


async def test_two_heads_keep_their_order(sent: Sent, transport: HeadHolder) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    transport.write(interim)
    transport.write(HEAD)
    transport.write(b"ok")
    assert b"".join([data for data in sent.done if isinstance(data, bytes)]) == interim + HEAD + b"ok"


async def test_the_rest_is_the_transports_own(transport: HeadHolder) -> None:
    assert transport.get_extra_info("peername") == "the peername"
    assert transport.get_extra_info("other", 1) == 1
