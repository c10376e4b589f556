"""Accepted calls in Redis (``redis://``, ``rediss://``), shared by any number of nodes.

Every operation is one script that Redis runs whole or not at all. What was answered is as durable as the configuration
of Redis: ``appendonly yes`` with ``appendfsync always`` survives a loss of power.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import urllib.parse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.models.call import Call
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.queues.base import MAX_RESERVED_BYTES, VISIBILITY_TIMEOUT_S, Backlog, Queue, Reserved
from hearth.queues.messages import (
    HEADS_AT_ONCE,
    MAX_HEAD_BYTES,
    Row,
    decode_rows,
    encode_all,
    images_of,
    is_full,
    log_not_given_back,
    name_rows,
    oldest,
)
from hearth.queues.readiness import Readiness
from hearth.telemetry.logs import get_logger

SCRIPT: Final = Path(__file__).with_name("redis.lua")
_KEYS: Final = (
    *("places", "calls", "deliveries", "delayed", "leased", "ready:0", "ready:1", "ready:2", "wake", "names"),
    *("turns:waiting", "turns:served", "apps:", "bytes", "turns:weights", "turns:had"),
)
_DEFAULT_PORT: Final = 6379
_MAX_CONNECTIONS: Final = 512
#: Seconds for an answer of Redis.
ANSWER_S: Final = 5.0
#: Attempts to reconnect at once, so that a restart of Redis is not noticed by later operations.
_RETRIES: Final = 3
_FIRST_BACK_OFF_S: Final = 0.02
_MAX_BACK_OFF_S: Final = 0.25
#: Seconds without a wake-up after which to look again: one may have been lost with its connection.
LOOK_AGAIN_S: Final = 5.0
_LISTEN_AGAIN_S: Final = 0.5
#: Seconds after which Redis deletes what a check wrote.
_PROBE_S: Final = 60

#: Parts of a lease for a message of an earlier version: priority, place, call, delivery.
_PARTS_OF_OLD_LEASE: Final = 4

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of a Redis, and the prefix of the keys. Printed without the password."""

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
        """Parse ``redis://[user:pass@]host:port/[prefix]``.

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
        """Return a client; ``answer_s`` limits the wait for an answer, ``None`` does not."""
        pool: Any = BlockingConnectionPool(
            max_connections=_MAX_CONNECTIONS,
            timeout=ANSWER_S,
            connection_class=SSLConnection if self.tls else Connection,
            host=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            socket_timeout=answer_s,
            socket_connect_timeout=ANSWER_S,
            socket_keepalive=True,
            retry=Retry(ExponentialWithJitterBackoff(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S), _RETRIES),
        )
        return redis.asyncio.Redis.from_pool(pool)


async def open_redis(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """Open the queue in the Redis at ``redis://[user:pass@]host:port/[prefix]``.

    Raises:
        StartUpError: The URL is not valid, or Redis does not answer.
    """
    return await RedisQueue.open(RedisAddress.parse(url), clock, visibility_s=visibility_s)


class RedisQueue(Queue):
    """Use :meth:`open`."""

    def __init__(self, address: RedisAddress, clock: Clock, visibility_s: float) -> None:
        self.visibility_s = visibility_s
        self._address = address
        self._clock = clock
        self._client = address.client(answer_s=ANSWER_S)
        self._script = self._client.register_script(SCRIPT.read_text())
        self._keys = [self._key(name) for name in _KEYS]
        self._readiness = Readiness()
        self._timer: asyncio.TimerHandle | None = None
        self._background = Background(log_not_given_back)
        self._listening = Background(lambda exc: _log.error("wake-ups of the queue ended", exc_info=exc))

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
        queue._listening.run(queue._listen())
        return queue

    async def push(self, calls: Sequence[Call]) -> None:
        """Store calls. A push whose answer is lost is repeated; the calls are stored once."""
        messages: list[Any] = []
        for call, message in zip(calls, await encode_all(calls), strict=True):
            messages += [call.priority, call.delay * 1000, _turn_of(call.app_name), call.id, message]
        await self._run("push", *messages)

    async def reserve(self, limit: int, without: Collection[str] = ()) -> list[Reserved]:
        """Take up to ``limit`` messages."""
        until = self._clock.monotonic() + self.visibility_s
        taking = self._background.start(self._take(limit, without))
        try:
            rows = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._give_back)
            raise
        reserved, nameless = decode_rows(rows, until)
        return reserved + name_rows(nameless, {lease: _names_in(lease) for lease, _, _ in nameless}, until)

    async def wait(self, without: Collection[str] = ()) -> None:
        """Wait until a message may be ready."""
        await self._readiness.wait(without)

    async def acknowledge(self, leases: Sequence[str]) -> list[bool]:
        """Delete messages."""
        return [bool(found) for found in await self._run("acknowledge", *leases)]

    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Restart the visibility timeout."""
        return [bool(found) for found in await self._run("renew", self._visibility_ms, *leases)]

    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Return a message to its place."""
        return bool(await self._run("release", lease, round(delay_s * 1000)))

    async def replace(self, lease: str, call: Call, delay_s: float) -> bool:
        """Put another message in the place of one."""
        (message,) = await encode_all([call])
        return bool(await self._run("replace", lease, round(delay_s * 1000), message))

    async def discard(self, call_id: str) -> bool:
        """Delete the message of a call."""
        return bool(await self._run("discard", call_id))

    async def check(self) -> None:
        """Write a key that expires: a Redis that is full, or cannot write to its disk, refuses it."""
        try:
            await self._client.set(self._key("probe"), b"", ex=_PROBE_S)
        except (RedisError, OSError) as exc:
            raise StoreUnavailable(f"queue: Redis at {self._address}: {exc}") from exc

    async def backlog(self) -> Backlog:
        """Return what waits."""
        length, *heads = await self._run("backlog")
        return Backlog(length, oldest(heads))

    async def weigh(self, app_name: str, weight: int) -> None:
        """Set the weight in Redis, for all nodes."""
        await self._run("weigh", _turn_of(app_name), weight)

    async def bytes_of(self, app_name: str) -> int:
        """Return what the script counts as messages come and go."""
        return int(await self._run("bytes", _turn_of(app_name)))

    async def images(self) -> set[str] | None:
        """Scan the messages, some at a time."""
        images: set[str] = set()
        cursor: Any = 0
        while True:
            cursor, *heads = await self._run("heads", cursor, HEADS_AT_ONCE, MAX_HEAD_BYTES)
            if int(cursor) < 0 or (some := images_of(heads)) is None:
                return None
            images |= some
            if not int(cursor):
                return images

    async def close(self) -> None:
        """Finish running operations, then disconnect."""
        await self._listening.cancel()
        await self._background.join()
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
        with contextlib.suppress(RedisError):  # a hosted Redis may not answer this
            told: dict[str, str] = await self._client.config_get("append*")
            if told.get("appendonly") != "yes" or told.get("appendfsync") != "always":
                _log.warning(
                    "Redis may forget accepted calls when it stops: set appendonly yes and appendfsync always",
                    appendonly=told.get("appendonly"),
                    appendfsync=told.get("appendfsync"),
                )

    async def _run(self, operation: str, *arguments: Any) -> Any:
        # A cancellation does not undo what was sent; only the caller stops waiting.
        return await asyncio.shield(self._background.start(self._call(operation, *arguments)))

    async def _call(self, operation: str, *arguments: Any) -> Any:
        try:
            return await self._script(keys=self._keys, args=[operation, *arguments])
        except (RedisError, OSError) as exc:
            raise StoreUnavailable(f"queue: Redis at {self._address}: {exc}") from exc

    async def _take(self, limit: int, without: Collection[str]) -> list[Row]:
        changes = self._readiness.changes
        due_ms, numbers, texts = await self._call(
            "reserve", limit, self._visibility_ms, MAX_RESERVED_BYTES, *map(_turn_of, without)
        )
        rows = _rows(numbers, texts)
        if len(rows) < limit and not is_full(rows):
            self._readiness.found_no_more(changes, without)
            if due_ms >= 0:
                self._look_in(due_ms / 1000)
        return rows

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # One millisecond later: the server truncates its time to milliseconds.
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds + 0.001, self._readiness.change)

    def _give_back(self, taking: asyncio.Task[list[Row]]) -> None:
        """Release what was reserved for a cancelled caller."""
        if taking.cancelled() or taking.exception() is not None:
            return
        for lease, _, _ in taking.result():
            self._background.run(self._call("release", lease, 0))

    # -- wake-ups -------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """End :meth:`wait` whenever any node has pushed or released a message."""
        client = self._address.client(answer_s=None)
        try:
            while True:
                try:
                    await self._hear(client)
                except (RedisError, OSError) as exc:
                    _log.warning("wake-ups of the queue interrupted", error=str(exc))
                    self._readiness.change()
                    await pause(self._clock, _LISTEN_AGAIN_S)
        finally:
            await client.aclose()

    async def _hear(self, client: redis.asyncio.Redis) -> None:
        async with client.pubsub() as channel:
            await channel.subscribe(self._key("wake"))
            while True:
                # A message, a new subscription, or a timeout: each means "look".
                await channel.get_message(timeout=LOOK_AGAIN_S)
                self._readiness.change()


def _turn_of(app_name: str) -> str:
    """Return the name under which an app takes turns. Names of messages use colons."""
    return app_name.replace(":", "_")


def _names_in(lease: str) -> tuple[str, str]:
    """Return the app and the id of the call that a lease names; empty for a message of an earlier version."""
    parts = lease.split(":")
    return (parts[2], ":".join(parts[3:-1])) if len(parts) > _PARTS_OF_OLD_LEASE else ("", "")


def _rows(numbers: bytes, texts: bytes) -> list[Row]:
    """Return what the script reserved. ``numbers`` has per message the lengths of lease and call, and the delivery."""
    rows: list[Row] = []
    told, at = map(int, numbers.split()), 0
    for lease_length, delivery, call_length in zip(told, told, told, strict=True):
        call_at = at + lease_length
        end = call_at + call_length
        rows.append((texts[at:call_at].decode(), delivery, texts[call_at:end]))
        at = end
    return rows
