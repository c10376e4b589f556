"""One call over stdin and stdout: when output is decoded, and what happens to a call whose output cannot be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.agent import Body, Sink
from tests.unit.protocol_events import a_call, cut, positions

from hearth.contracts.base import CallInput, ContainerGone, Exchange, Head
from hearth.contracts.stdio.codec import Decoder, Event
from hearth.contracts.stdio.default import DefaultContract
from hearth.contracts.stdio.exchange import StdioContract
from hearth.contracts.stdio.http import HttpContract
from hearth.contracts.stdio.json import JsonContract
from hearth.drivers.base import Exit, Stdio
from hearth.drivers.streams import StreamBuffer
from hearth.models.errors import ContainerExited, InvalidResponse

HEAD = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n"
ANSWER = HEAD + b"hello"


class Stdin:
    """Takes everything; ``read`` says whether the function has read it."""

    def __init__(self) -> None:
        self.written = b""
        self.read = True
        self.pending = 0
        self.closed = False

    async def write(self, data: bytes) -> None:
        self.written += data

    def unread(self) -> int:
        return 0 if self.read else len(self.written)

    def close(self) -> None:
        self.closed = True


class Spy(Decoder):
    """Notes what it is fed; may fail on it."""

    def __init__(self, inner: Decoder, fed: list[bytes], failure: Exception | None) -> None:
        self._inner, self._fed, self._failure = inner, fed, failure

    def feed(self, data: bytes) -> list[Event]:
        self._fed.append(data)
        if self._failure is not None:
            raise self._failure
        return self._inner.feed(data)

    def feed_eof(self) -> list[Event]:
        return self._inner.feed_eof()

    @property
    def started(self) -> bool:
        return self._inner.started


class SpiedContract(HttpContract):
    """The ``http`` format; notes what it decodes, and may fail on it.

    Attributes:
        fed: What was decoded.
        wholes: The part of it that was a whole answer.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.fed: list[bytes] = []
        self.wholes: list[bytes] = []
        self._failure = failure

    def whole_answer(self, call: CallInput, data: bytes) -> tuple[Head, bytes] | None:
        answer = super().whole_answer(call, data)
        if answer is not None:
            self.fed.append(data)
            self.wholes.append(data)
            if self._failure is not None:
                raise self._failure
        return answer

    def decoder(self, call: CallInput) -> Decoder:
        return Spy(super().decoder(call), self.fed, self._failure)


class World:
    """A call under way on a container that has served before, or on a fresh one."""

    def __init__(
        self,
        contract: StdioContract,
        *,
        fresh: bool = False,
        watched: bool = False,
        method: str = "POST",
        body: Body | None = None,
    ) -> None:
        self.stdin, self.sink = Stdin(), Sink()
        self.stdout = StreamBuffer(lambda: None, lambda: None)
        self.container = SimpleNamespace(
            channel=Stdio(self.stdin, self.stdout), exited=None, wait=self._wait, ended_at=self._ended_at
        )
        body = body or Body(b"hi")
        made = a_call(content_length=body.length, method=method)
        call: Any = SimpleNamespace(
            body=body, sink=self.sink, kept_body=[], started_at=None, input=lambda: made, log_fields=dict
        )
        container = cast(Any, self.container)
        self.exchange: Exchange = contract.exchange(call, container, fresh=fresh, on_probation=watched)
        self.running = asyncio.ensure_future(self.exchange.run())

    async def _wait(self) -> Exit:
        self.container.exited = Exit(0)
        return Exit(0)

    async def _ended_at(self) -> None:
        return None

    async def begin(self) -> World:
        """Wait until the input was written."""
        while not self.stdin.written:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self


async def test_a_short_answer_is_decoded_as_it_arrives_and_delivered_once() -> None:
    contract = SpiedContract()
    world = await World(contract).begin()
    world.stdout.feed(ANSWER)
    assert contract.fed == [ANSWER]
    await world.running
    assert (world.exchange.status, world.sink.body, world.sink.completed) == (201, b"hello", 1)
    assert world.exchange.is_clean()


@pytest.mark.parametrize("late", [b"surplus", b""], ids=["bytes", "the end"])
async def test_what_follows_an_answer_before_the_call_has_taken_it_spoils_the_container(late: bytes) -> None:
    world = await World(HttpContract()).begin()
    world.stdout.feed(ANSWER)
    world.stdout.feed(b"\r\n")
    if late:
        world.stdout.feed(late)
    else:
        world.stdout.feed_eof()
    await world.running
    assert (world.sink.body, world.exchange.surplus, world.exchange.is_clean()) == (b"hello", bool(late), False)


@pytest.mark.parametrize("late", [b"surplus", b""], ids=["bytes", "the end"])
@pytest.mark.parametrize("body", [b"hello", b"x" * 2000], ids=["short", "long"])
async def test_what_follows_an_answer_until_the_container_is_given_back_spoils_it(late: bytes, body: bytes) -> None:
    world = await World(HttpContract()).begin()
    world.stdout.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await world.running
    world.stdout.feed(b"\n")
    if late:
        world.stdout.feed(late)
    else:
        world.stdout.feed_eof()
    assert (world.sink.body, world.exchange.surplus, world.exchange.is_clean()) == (body, bool(late), False)


async def test_whitespace_after_an_answer_does_not_matter() -> None:
    world = await World(HttpContract()).begin()
    world.stdout.feed(ANSWER)
    await world.running
    world.stdout.feed(b"\r\n")
    assert (world.exchange.surplus, world.exchange.is_clean()) == (False, True)


async def test_a_container_that_has_not_read_its_input_by_the_end_of_the_answer_is_not_clean() -> None:
    world = World(HttpContract(), fresh=True)
    world.stdin.read = False
    await world.begin()
    world.stdout.feed(ANSWER)
    await world.running
    assert (world.sink.body, world.exchange.is_clean()) == (b"hello", False)
    late = World(HttpContract(), fresh=True)
    late.stdin.read = False
    await late.begin()
    late.stdout.feed(ANSWER)
    late.stdin.read = True
    await late.running
    assert late.exchange.is_clean()


async def test_a_slow_client_holds_the_function_back() -> None:
    contract = HttpContract()
    world = await World(contract).begin()
    world.stdout.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\nx")
    world.stdout.feed(b"x" * 1999)
    assert world.stdout.size == 1999
    await world.running
    assert world.sink.body == b"x" * 2000


async def test_a_head_alone_does_not_wake_the_call() -> None:
    contract = SpiedContract()
    world = await World(contract).begin()
    world.stdout.feed(HEAD)
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.sink.heads == []
    world.stdout.feed(b"he")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (world.exchange.status, world.sink.body) == (201, b"he")
    world.stdout.feed(b"llo")
    await world.running
    assert world.sink.body == b"hello"


async def test_a_long_piece_is_decoded_by_the_call_itself() -> None:
    contract = SpiedContract()
    world = await World(contract).begin()
    world.stdout.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000)
    assert contract.fed == []
    await world.running
    assert world.sink.body == b"x" * 2000


@given(at=positions, length=st.sampled_from([0, 1, 100, 3000]))
def test_however_an_answer_is_cut_it_is_delivered_whole(at: list[int], length: int) -> None:
    async def scenario() -> None:
        body = b"y" * length
        world = await World(HttpContract()).begin()
        for number, piece in enumerate(cut(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body), at)):
            if piece:
                world.stdout.feed(piece)
            if number % 2:
                await asyncio.sleep(0)
        await world.running
        assert (world.sink.body, world.sink.completed, world.exchange.is_clean()) == (body, 1, True)

    asyncio.run(scenario())


async def test_an_answer_to_unread_input_belongs_to_the_call_before_even_if_it_is_read_a_moment_later() -> None:
    world = World(HttpContract())
    world.stdin.read = False
    await world.begin()
    world.stdout.feed(ANSWER)
    world.stdin.read = True
    with pytest.raises(ContainerGone):
        await world.running
    assert (world.exchange.surplus, world.exchange.is_clean(), world.sink.heads) == (True, False, [])


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), RecursionError()], ids=repr)
@pytest.mark.parametrize("data", [ANSWER, HEAD], ids=["whole", "in part"])
async def test_whatever_goes_wrong_while_output_is_decoded_ends_the_call(failure: Exception, data: bytes) -> None:
    world = await World(SpiedContract(failure)).begin()
    world.stdout.feed(data)
    with pytest.raises(type(failure)):
        await world.running
    assert not world.exchange.is_clean()


async def test_output_that_is_no_answer_ends_the_call() -> None:
    world = await World(HttpContract()).begin()
    world.stdout.feed(b"hello\n")
    world.stdout.feed(b"world\n")
    with pytest.raises(InvalidResponse):
        await world.running
    assert not world.exchange.surplus


async def test_an_answer_to_a_part_of_the_body_leaves_no_clean_container() -> None:
    world = await World(HttpContract(), body=Body(b"h", length=2, open_end=True)).begin()
    world.stdout.feed(ANSWER)
    await world.running
    assert (world.sink.body, world.exchange.is_clean()) == (b"hello", False)


class EndingBody(Body):
    """A body whose end arrives by itself, right after its last piece was read."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(*pieces, open_end=True)
        self.length = None

    async def read(self) -> bytes:
        piece = await super().read()
        if not self._pieces and not self.ended:
            asyncio.get_running_loop().call_soon(self.put, b"")
        return piece


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize(("contract", "end"), [(HttpContract(), b"0\r\n\r\n"), (JsonContract(), b"}\n\n")])
async def test_the_end_of_a_body_is_written_whenever_it_arrives(
    contract: StdioContract, end: bytes, pieces: int, watched: bool
) -> None:
    world = World(contract, body=EndingBody(*[b"piece"] * pieces), watched=watched)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert world.stdin.written.count(b"piece") == pieces
    assert world.stdin.written.endswith(end)
    world.running.cancel()
    await asyncio.wait([world.running])


async def test_a_call_that_gives_up_takes_nothing_that_comes_in_the_same_turn() -> None:
    contract = SpiedContract()
    world = await World(contract).begin()
    world.running.cancel()
    world.stdout.feed(ANSWER)
    await asyncio.wait([world.running])
    world.stdout.feed(ANSWER)
    assert (contract.fed, world.sink.heads) == ([], [])
    assert (world.exchange.surplus, world.exchange.is_clean()) == (False, False)


async def test_a_call_that_gave_up_reads_no_longer() -> None:
    world = await World(HttpContract()).begin()
    world.running.cancel()
    await asyncio.wait([world.running])
    reading = asyncio.ensure_future(world.stdout.read())
    await asyncio.sleep(0)
    world.stdout.feed(ANSWER)
    assert await reading == ANSWER


async def test_a_container_that_ends_after_the_head_of_its_answer_is_to_blame() -> None:
    world = await World(HttpContract()).begin()
    world.stdout.feed(HEAD)
    world.stdout.feed_eof()
    with pytest.raises(InvalidResponse):
        await world.running
    silent = await World(HttpContract()).begin()
    silent.stdout.feed_eof()
    with pytest.raises(ContainerExited):
        await silent.running


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_a_cold_answer_ends_with_its_container(method: str) -> None:
    world = await World(DefaultContract(), method=method).begin()
    assert world.stdin.closed
    world.stdout.feed(b"hello")
    await asyncio.sleep(0)
    assert not world.running.done()
    world.stdout.feed_eof()
    await world.running
    assert (world.exchange.status, world.sink.body) == (200, b"hello" if method == "POST" else b"")
