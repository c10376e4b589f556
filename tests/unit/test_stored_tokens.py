"""The check of stored tokens: what is remembered, for how long, and what a database that is away means."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.support.clock import FakeClock

from hearth.authorize import stored_tokens
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import digest, new_token
from hearth.models.errors import StoreUnavailable, TokensUnavailable
from hearth.models.principal import Principal, Role
from hearth.models.times import ZERO
from hearth.models.token import Token

VALUE = new_token().encode()
VIEWER = Principal(Role.VIEWER, frozenset({"a"}), "id", "ci")


def made(value: bytes = VALUE, *, token_id: str = "id", expires_at: dt.datetime = ZERO) -> Token:
    return Token(
        id=token_id,
        name="ci",
        role=Role.VIEWER,
        apps=("a",),
        digest=digest(value),
        created_at=FakeClock().now(),
        expires_at=expires_at,
    )


@dataclasses.dataclass
class Store:
    """A store whose answers a test can hold back, or fail."""

    tokens: dict[str, Token] = dataclasses.field(default_factory=dict)
    asked: int = 0
    is_away: bool = False
    held: asyncio.Event | None = None
    uses: list[tuple[str, dt.datetime]] = dataclasses.field(default_factory=list)

    async def find(self, key: str) -> Token | None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("away")
        found = self.tokens.get(key)
        if self.held is not None:
            await self.held.wait()
        return found

    async def note_use(self, token_id: str, at: dt.datetime) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.uses.append((token_id, at))
        for key, token in self.tokens.items():
            if token.id == token_id:
                self.tokens[key] = msgspec.structs.replace(token, last_used_at=at)


@dataclasses.dataclass
class World:
    """Stored tokens over a store with one token."""

    clock: FakeClock = dataclasses.field(default_factory=FakeClock)
    store: Store = dataclasses.field(default_factory=Store)

    def __post_init__(self) -> None:
        self.store.tokens[digest(VALUE)] = made()
        self.tokens = StoredTokens(self.store.find, self.clock, self.store.note_use)

    async def settle(self) -> None:
        """Wait for what runs in the background."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_token_is_checked_once_and_then_known_for_a_while(world: World) -> None:
    assert world.tokens.find_nowait(digest(VALUE)) is None
    assert await world.tokens.find(VALUE) == VIEWER
    for _ in range(100):
        assert world.tokens.find_nowait(digest(VALUE)) == VIEWER
        assert await world.tokens.find(VALUE) == VIEWER
    assert world.store.asked == 1
    assert VALUE.decode() not in repr(vars(world.tokens)), "digests are kept, and no token"


async def test_a_token_in_use_is_checked_ahead_of_time_so_that_nobody_waits(world: World) -> None:
    await world.tokens.find(VALUE)
    for _ in range(10):
        world.clock.advance(3)
        assert world.tokens.find_nowait(digest(VALUE)) == VIEWER
        assert world.tokens.find_nowait(digest(VALUE)) == VIEWER
        await world.settle()
    assert world.store.asked == 11


@pytest.mark.parametrize("is_away", [False, True])
async def test_another_nodes_revocation_is_known_5_s_later_at_most(world: World, is_away: bool) -> None:
    await world.tokens.find(VALUE)
    world.store.tokens.clear()
    world.store.is_away = is_away
    world.clock.advance(4.9)
    assert world.tokens.find_nowait(digest(VALUE)) == VIEWER
    await world.settle()
    world.clock.advance(0.1)
    assert world.tokens.find_nowait(digest(VALUE)) is None
    if is_away:
        with pytest.raises(TokensUnavailable):
            await world.tokens.find(VALUE)
    else:
        assert await world.tokens.find(VALUE) is None


async def test_the_5_s_begin_when_the_database_is_asked_and_not_when_it_answers(world: World) -> None:
    world.store.held = asyncio.Event()
    checking = asyncio.ensure_future(world.tokens.find(VALUE))
    await asyncio.sleep(0)
    world.clock.advance(4)
    world.store.held.set()
    assert await checking == VIEWER
    world.clock.advance(1)
    assert world.tokens.find_nowait(digest(VALUE)) is None


async def test_a_revocation_on_this_node_holds_at_once(world: World) -> None:
    await world.tokens.find(VALUE)
    world.store.tokens.clear()
    world.tokens.forget("id")
    assert world.tokens.find_nowait(digest(VALUE)) is None
    assert await world.tokens.find(VALUE) is None


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_check_that_a_revocation_overtakes_is_not_remembered(world: World, ahead: bool) -> None:
    if ahead:
        await world.tokens.find(VALUE)
        world.clock.advance(3)
    world.store.held = asyncio.Event()
    checking: asyncio.Future[object] = asyncio.ensure_future(world.tokens.find(VALUE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.store.tokens.clear()
    world.tokens.forget("id")
    world.store.held.set()
    await checking
    await world.settle()
    assert world.tokens.find_nowait(digest(VALUE)) is None
    assert await world.tokens.find(VALUE) is None


async def test_what_expires_is_refused_from_that_moment_on(world: World) -> None:
    expires_at = world.clock.now() + dt.timedelta(seconds=2)
    world.store.tokens[digest(VALUE)] = made(expires_at=expires_at)
    assert await world.tokens.find(VALUE) is not None
    world.clock.advance(1.999)
    assert world.tokens.find_nowait(digest(VALUE)) is not None
    world.store.is_away = True
    world.clock.advance(0.001)
    assert world.tokens.find_nowait(digest(VALUE)) is None
    with pytest.raises(TokensUnavailable):
        await world.tokens.find(VALUE)
    world.store.is_away = False
    assert await world.tokens.find(VALUE) is None


@pytest.mark.parametrize("skew_s", [-3600, 3600])
async def test_a_clock_that_is_set_decides_about_expiry_and_not_about_trust(world: World, skew_s: float) -> None:
    world.store.tokens[digest(VALUE)] = made(expires_at=world.clock.now() + dt.timedelta(minutes=30))
    await world.tokens.find(VALUE)
    world.clock.set_wall(skew_s)
    assert (world.tokens.find_nowait(digest(VALUE)) is None) == (skew_s > 0)
    world.clock.advance(5)
    assert world.tokens.find_nowait(digest(VALUE)) is None, "a clock that is set back prolongs no check"


async def test_while_the_database_is_away_no_unchecked_token_is_trusted(world: World) -> None:
    world.store.is_away = True
    with pytest.raises(TokensUnavailable) as refused:
        await world.tokens.find(VALUE)
    assert (refused.value.code, refused.value.headers) == (503, {"Retry-After": "1"})
    world.store.is_away = False
    assert await world.tokens.find(VALUE) == VIEWER


async def test_what_has_no_form_of_a_token_costs_the_database_nothing(world: World) -> None:
    world.store.is_away = True
    for text in ("", "x", "hearth_", VALUE.decode()[:-1] + "!", VALUE.decode().upper(), "\xff" * 46):
        assert await world.tokens.find(text.encode("latin-1")) is None
    assert world.store.asked == 0


async def test_wrong_tokens_push_no_valid_one_out(world: World) -> None:
    await world.tokens.find(VALUE)
    for _ in range(1000):
        assert await world.tokens.find(new_token().encode()) is None
    assert world.tokens.find_nowait(digest(VALUE)) == VIEWER
    assert repr(world.tokens) == "<StoredTokens checked=1>"


async def test_a_bounded_number_of_tokens_is_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tokens, "REMEMBERED", 3)
    values = [new_token().encode() for _ in range(5)]
    for number, value in enumerate(values):
        world.store.tokens[digest(value)] = made(value, token_id=str(number))
        assert await world.tokens.find(value) is not None
    assert [world.tokens.find_nowait(digest(value)) is not None for value in values] == [False] * 2 + [True] * 3


async def test_the_last_use_is_stored_once_in_an_hour(world: World) -> None:
    hour = dt.timedelta(hours=1)
    start = world.clock.now()
    for minutes in (0, 1, 30, 58, 59):
        world.clock.advance(minutes and 60 * minutes - (world.clock.now() - start).total_seconds())
        assert await world.tokens.find(VALUE) == VIEWER
        await world.settle()
    assert world.store.uses == [("id", start)]
    world.clock.advance(60 + 59)
    await world.tokens.find(VALUE)
    await world.settle()
    assert world.store.uses == [("id", start), ("id", start + hour)]


async def test_a_use_that_cannot_be_stored_refuses_nobody(world: World) -> None:
    await world.tokens.find(VALUE)
    await world.settle()
    world.clock.advance(3600 - 2)
    assert await world.tokens.find(VALUE) == VIEWER
    world.store.is_away = True
    world.clock.advance(2)
    assert await world.tokens.find(VALUE) == VIEWER
    await world.settle()
    world.store.is_away = False
    world.clock.advance(3)
    assert await world.tokens.find(VALUE) == VIEWER
    await world.settle()
    assert len(world.store.uses) == 2, "the next check tries again"


class Revocations(RuleBasedStateMachine):
    """Two nodes over one store; time passes, the database goes away, tokens come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.store = FakeClock(), Store()
        self.nodes = [StoredTokens(self.store.find, self.clock) for _ in range(2)]
        self.values = [new_token().encode() for _ in range(3)]
        #: When and on which node a token was revoked.
        self.revoked: dict[int, tuple[float, int]] = {}

    def teardown(self) -> None:
        self.loop.close()

    @rule(number=st.integers(0, 2))
    def create(self, number: int) -> None:
        if number not in self.revoked:
            value = self.values[number]
            self.store.tokens[digest(value)] = made(value, token_id=str(number))

    @rule(number=st.integers(0, 2), node=st.integers(0, 1))
    def revoke(self, number: int, node: int) -> None:
        if not self.store.is_away and self.store.tokens.pop(digest(self.values[number]), None) is not None:
            self.nodes[node].forget(str(number))
            self.revoked[number] = self.clock.monotonic(), node

    @rule(seconds=st.sampled_from([0.5, 2.4, 2.6, 4.9, 5.0, 60]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(is_away=st.booleans())
    def database(self, is_away: bool) -> None:
        self.store.is_away = is_away

    @rule(number=st.integers(0, 2), node=st.integers(0, 1))
    def use(self, number: int, node: int) -> None:
        async def find() -> Principal | None:
            try:
                return await self.nodes[node].find(self.values[number])
            except TokensUnavailable:
                assert self.store.is_away
                return None
            finally:
                for _ in range(20):  # what runs in the background
                    await asyncio.sleep(0)

        found = self.loop.run_until_complete(find())
        if found is not None:
            assert found.token_id == str(number)
            if number in self.revoked:
                at, where = self.revoked[number]
                assert node != where
                assert self.clock.monotonic() - at < 5
        elif not self.store.is_away:
            assert digest(self.values[number]) not in self.store.tokens


TestRevocations = Revocations.TestCase
TestRevocations.settings = hypothesis.settings(max_examples=60, stateful_step_count=30, deadline=None)
