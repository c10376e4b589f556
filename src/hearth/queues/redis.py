"""Accepted calls in Redis (``redis://``, ``rediss://``), shared by any number of nodes.

Every operation is one script that Redis runs whole or not at all. What was answered is as durable as Redis is told to
be: ``appendonly yes`` with ``appendfsync always`` survives a loss of power.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import urllib.parse
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from hearth.clock import Clock, pause
from hearth.models.call import Call
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.models.message import encode_call
from hearth.queues.base import VISIBILITY_TIMEOUT_S, Backlog, Queue, Reserved
from hearth.queues.messages import Row, decode_rows, oldest
from hearth.telemetry.logs import get_logger

_SCRIPT: Final = Path(__file__).with_name("redis.lua")
_KEYS: Final = ("places", "calls", "deliveries", "delayed", "leased", "ready:0", "ready:1", "ready:2", "wake", "names")
_DEFAULT_PORT: Final = 6379
_MAX_CONNECTIONS: Final = 512
#: Seconds in which Redis has to answer.
_ANSWER_S: Final = 5.0
#: A connection that broke is made anew so often, at once: a restart of Redis is not seen by who comes after it.
_RETRIES: Final = 3
_FIRST_BACK_OFF_S: Final = 0.02
_MAX_BACK_OFF_S: Final = 0.25
#: Without a wake-up, look again after this long: one may have been lost with its connection.
_LOOK_AGAIN_S: Final = 5.0
_LISTEN_AGAIN_S: Final = 0.5

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and whose keys are ours. Prints without the password."""

    host: str
    port: int
    user: str | None
    password: str | None = dataclasses.field(repr=False)
    prefix: str
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """The address that ``redis://[user:pass@]host:port/[prefix]`` names.

        Raises:
            StartUpError: It names none. The text shows no password.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port or _DEFAULT_PORT
        except ValueError:
            host, port = None, 0
        if not host:
            raise StartUpError("bad MQ URL: use FN_MQ_URL=redis://[user:password@]host:port/[prefix]")
        user, password = (urllib.parse.unquote(text) if text else None for text in (parts.username, parts.password))
        return cls(host, port, user, password, parts.path, parts.scheme == "rediss")

    def client(self, *, answer_s: float | None) -> redis.asyncio.Redis:
        """A client; ``answer_s`` is how long an answer may take, ``None`` for ever."""
        pool: Any = BlockingConnectionPool(
            max_connections=_MAX_CONNECTIONS,
            timeout=_ANSWER_S,
            connection_class=SSLConnection if self.tls else Connection,
            host=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            socket_timeout=answer_s,
            socket_connect_timeout=_ANSWER_S,
            socket_keepalive=True,
            retry=Retry(ExponentialWithJitterBackoff(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S), _RETRIES),
        )
        return redis.asyncio.Redis.from_pool(pool)


async def open_redis(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """The queue in the Redis that ``redis://[user:pass@]host:port/[prefix]`` names.

    Raises:
        StartUpError: The URL is of no use, or Redis does not answer.
    """
    return await RedisQueue.open(RedisAddress.parse(url), clock, visibility_s=visibility_s)


class RedisQueue(Queue):
    """Use :meth:`open`."""

    def __init__(self, address: RedisAddress, clock: Clock, visibility_s: float) -> None:
        self.visibility_s = visibility_s
        self._address = address
        self._clock = clock
        self._client = address.client(answer_s=_ANSWER_S)
        self._script = self._client.register_script(_SCRIPT.read_text())
        self._keys = [self._key(name) for name in _KEYS]
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisQueue {self._address} {self._address.prefix}>"

    @classmethod
    async def open(cls, address: RedisAddress, clock: Clock, *, visibility_s: float) -> RedisQueue:
        """Connect.

        Raises:
            StartUpError: Redis does not answer.
        """
        queue = cls(address, clock, visibility_s)
        try:
            await queue._greet()
        except (RedisError, OSError) as exc:
            await queue._client.aclose()
            raise StartUpError(f"FN_MQ_URL: Redis at {address} does not answer: {exc}; start it first") from exc
        queue._ready.set()
        queue._listening = asyncio.get_running_loop().create_task(queue._listen())
        return queue

    async def push(self, calls: Sequence[Call]) -> None:
        """Keep calls. An answer that is lost is asked for again; the calls are kept once."""
        messages: list[Any] = []
        for call in calls:
            messages += [call.priority, call.delay * 1000, call.id, encode_call(call)]
        await self._run("push", *messages)

    async def reserve(self, limit: int) -> list[Reserved]:
        """Take up to ``limit`` messages."""
        until = self._clock.monotonic() + self.visibility_s
        self._ready.clear()  # before the look: what is pushed after it wakes again
        taking = self._start(self._take(limit))
        try:
            rows = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._ready.set()
            taking.add_done_callback(self._give_back)
            raise
        reserved, worthless = decode_rows(rows, until)
        if worthless:
            self._start(self._quietly(self._call("settle", *worthless)))
        return reserved

    async def wait(self) -> None:
        """Wait until a message may be ready."""
        await self._ready.wait()

    async def settle(self, leases: Sequence[str]) -> list[bool]:
        """Delete messages."""
        return [bool(found) for found in await self._run("settle", *leases)]

    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Begin the visibility timeout anew."""
        return [bool(found) for found in await self._run("renew", self._visibility_ms, *leases)]

    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Give a message back."""
        return bool(await self._run("release", lease, round(delay_s * 1000)))

    async def backlog(self) -> Backlog:
        """What waits."""
        length, *heads = await self._run("backlog")
        return Backlog(length, oldest(heads))

    async def close(self) -> None:
        """Finish what is under way, then disconnect."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        await self._client.aclose()

    # -- talking to Redis -----------------------------------------------------------------------------------------

    @property
    def _visibility_ms(self) -> int:
        return round(self.visibility_s * 1000)

    def _key(self, name: str) -> str:
        return f"{self._address.prefix}hearth:{name}"

    async def _greet(self) -> None:
        answer: Any = self._client.ping()
        await answer
        with contextlib.suppress(RedisError):  # a hosted Redis may not tell
            told: dict[str, str] = await self._client.config_get("append*")
            if told.get("appendonly") != "yes" or told.get("appendfsync") != "always":
                _log.warning(
                    "Redis may forget accepted calls when it stops: set appendonly yes and appendfsync always",
                    appendonly=told.get("appendonly"),
                    appendfsync=told.get("appendfsync"),
                )

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that goes on although nobody waits for it any more; :meth:`close` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, operation: str, *arguments: Any) -> Any:
        # What has been sent is not taken back by a cancellation; the caller only stops waiting.
        return await asyncio.shield(self._start(self._call(operation, *arguments)))

    async def _call(self, operation: str, *arguments: Any) -> Any:
        try:
            return await self._script(keys=self._keys, args=[operation, *arguments])
        except (RedisError, OSError) as exc:
            raise StoreUnavailable(f"queue: Redis at {self._address}: {exc}") from exc

    async def _take(self, limit: int) -> list[Row]:
        try:
            due_ms, numbers, texts = await self._call("reserve", limit, self._visibility_ms)
        except StoreUnavailable:
            self._ready.set()  # who waits next asks again, and hears of it
            raise
        rows = _rows(numbers, texts)
        if len(rows) == limit:
            self._ready.set()
        elif due_ms >= 0:
            self._look_in(due_ms / 1000)
        return rows

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A millisecond later: the server cuts its time to whole ones.
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds + 0.001, self._ready.set)

    def _give_back(self, taking: asyncio.Task[list[Row]]) -> None:
        """Nobody waits any more for what was just reserved: it returns at once."""
        if taking.cancelled() or taking.exception() is not None:
            return
        for lease, _, _ in taking.result():
            self._start(self._quietly(self._call("release", lease, 0)))

    async def _quietly(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except StoreUnavailable as exc:  # the lease expires
            _log.warning("reserved message not given back", error=str(exc))

    # -- wake-ups -------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Have :meth:`wait` end whenever something was pushed or given back, by any node."""
        client = self._address.client(answer_s=None)
        try:
            while True:
                try:
                    await self._hear(client)
                except (RedisError, OSError) as exc:
                    _log.warning("wake-ups of the queue interrupted", error=str(exc))
                    self._ready.set()
                    await pause(self._clock, _LISTEN_AGAIN_S)
        finally:
            await client.aclose()

    async def _hear(self, client: redis.asyncio.Redis) -> None:
        async with client.pubsub() as channel:
            await channel.subscribe(self._key("wake"))
            while True:
                # A message, the word that the subscription was made (anew), or nothing for some time: all say "look".
                await channel.get_message(timeout=_LOOK_AGAIN_S)
                self._ready.set()


def _rows(numbers: bytes, texts: bytes) -> list[Row]:
    """What the script reserved: of each message the length of the lease, the delivery and the length of the call."""
    rows: list[Row] = []
    told, at = map(int, numbers.split()), 0
    for lease_length, delivery, call_length in zip(told, told, told, strict=True):
        call_at = at + lease_length
        end = call_at + call_length
        rows.append((texts[at:call_at].decode(), delivery, texts[call_at:end]))
        at = end
    return rows
