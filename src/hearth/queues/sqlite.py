"""The embedded queue: one SQLite file (``bolt://``), or memory (``memory://``).

One thread writes the file; memory needs no thread. Leases are measured by the monotonic clock while this process lives,
so a step of the wall clock ends none of them. The wall time that is stored with them counts only after a restart.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from hearth.aio.background import Background
from hearth.aio.clock import Clock, next_turn
from hearth.aio.worker_thread import WorkThread
from hearth.models.call import Call
from hearth.models.errors import StartUpError, StoreRefused, StoreUnavailable
from hearth.queues.base import VISIBILITY_TIMEOUT_S, Backlog, Queue, Reserved
from hearth.queues.message_file import MEMORY, MessageFile, NewMessage
from hearth.queues.messages import (
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

T = TypeVar("T")

#: While nothing is due earlier, look again after this long at most: the wall clock may have been set.
_LOOK_AGAIN_S: Final = 60.0


async def open_bolt(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """Open the queue in the file that ``bolt:///absolute/path`` names; create it if it is missing.

    Raises:
        StartUpError: Another process holds the file, or it is no queue of Hearth's; it is unchanged.
    """
    path = url.partition("://")[2]
    if not path:
        raise StartUpError(f"FN_MQ_URL={url}: use bolt:///absolute/path/to/fn.mq")
    return await SqliteQueue.open(path, clock, visibility_s=visibility_s)


async def open_memory(url: str, clock: Clock, *, visibility_s: float = VISIBILITY_TIMEOUT_S) -> Queue:
    """Open a queue that ends with the process."""
    return await SqliteQueue.open(MEMORY, clock, visibility_s=visibility_s)


class SqliteQueue(Queue):
    """Use :meth:`open`."""

    def __init__(self, path: str, clock: Clock, visibility_s: float) -> None:
        self.visibility_s = visibility_s
        self._path = path
        self._clock = clock
        self._thread: WorkThread | _Here = _Here() if path == MEMORY else WorkThread("hearth-queue")
        self._messages: MessageFile
        self._leases: dict[str, float] = {}
        self._kept = 0
        self._readiness = Readiness()
        self._timer: asyncio.TimerHandle | None = None
        self._background = Background(log_not_given_back)

    def __repr__(self) -> str:
        return f"<SqliteQueue {self._path} leased={len(self._leases)}>"

    @classmethod
    async def open(cls, path: str, clock: Clock, *, visibility_s: float) -> SqliteQueue:
        """Open the file and take it for this process alone.

        Raises:
            StartUpError: It cannot be opened.
        """
        queue = cls(path, clock, visibility_s)
        try:
            left = await queue._in_thread(lambda: queue._open(clock.now_ms()))
        except BaseException:
            queue._thread.end()
            raise
        now = clock.monotonic()
        queue._leases = {lease: now + min(visibility_s, max(0.0, seconds)) for lease, seconds in left}
        return queue

    async def push(self, calls: Sequence[Call]) -> None:
        """Store calls in one transaction."""
        messages = await encode_all(calls)
        now_ms = self._clock.now_ms()
        rows = [
            NewMessage(call.priority, not call.delay, now_ms + call.delay * 1000, message, call.id, call.app_name)
            for call, message in zip(calls, messages, strict=True)
        ]
        added = await self._in_thread(lambda: self._messages.insert(rows))
        self._kept += added
        self._readiness.change()

    async def reserve(self, limit: int, without: Collection[str] = ()) -> list[Reserved]:
        """Take up to ``limit`` messages."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        until_ms = now_ms + round(self.visibility_s * 1000)
        expired = [lease for lease, until in self._leases.items() if until <= now]
        changes = self._readiness.changes
        taking = self._background.start(
            self._in_thread(lambda: self._messages.take(limit, expired, now_ms, until_ms, without))
        )
        try:
            rows, next_ms = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._give_back)
            raise
        for lease in expired:
            self._leases.pop(lease, None)
        for lease, _, _ in rows:
            self._leases[lease] = now + self.visibility_s
        if len(rows) < limit and not is_full(rows):
            self._readiness.found_no_more(changes, without)
            self._look_when_due(None if next_ms is None else (next_ms - now_ms) / 1000)
        reserved, nameless = decode_rows(rows, now + self.visibility_s)
        if not nameless:
            return reserved
        names = await self._in_thread(lambda: self._messages.names([lease for lease, _, _ in nameless]))
        return reserved + name_rows(nameless, names, now + self.visibility_s)

    async def wait(self, without: Collection[str] = ()) -> None:
        """Wait until a message may be ready."""
        await self._readiness.wait(without)

    async def acknowledge(self, leases: Sequence[str]) -> list[bool]:
        """Delete messages in one transaction."""
        found = await self._in_thread(lambda: self._delete(leases))
        self._kept -= sum(found)
        for lease in leases:
            self._leases.pop(lease, None)
        return found

    async def renew(self, leases: Sequence[str]) -> list[bool]:
        """Restart the visibility timeout."""
        until_ms = self._clock.now_ms() + round(self.visibility_s * 1000)
        found = await self._in_thread(lambda: self._messages.prolong(leases, until_ms))
        until = self._clock.monotonic() + self.visibility_s
        self._leases.update({lease: until for lease, known in zip(leases, found, strict=True) if known})
        return found

    async def release(self, lease: str, delay_s: float = 0.0) -> bool:
        """Give a message back."""
        visible_ms = self._clock.now_ms() + round(delay_s * 1000)
        found = await self._in_thread(lambda: self._messages.hide(lease, visible_ms, ready=delay_s <= 0))
        self._leases.pop(lease, None)
        self._readiness.change()
        return found

    async def replace(self, lease: str, call: Call, delay_s: float) -> bool:
        """Give another message back."""
        (message,) = await encode_all([call])
        visible_ms = self._clock.now_ms() + round(delay_s * 1000)
        found = await self._in_thread(lambda: self._messages.replace(lease, visible_ms, message, ready=delay_s <= 0))
        self._leases.pop(lease, None)
        self._readiness.change()
        return found

    async def discard(self, call_id: str) -> bool:
        """Delete the message of a call."""
        found = await self._in_thread(lambda: self._messages.discard(call_id))
        self._kept -= found
        return found

    async def check(self) -> None:
        """Write to the file: a disk that is full, or a file that was deleted, shows here."""
        await self._in_thread(self._messages.probe)

    async def backlog(self) -> Backlog:
        """Return what waits. It is counted as it comes and goes, because counting a long queue takes long."""
        heads = await self._in_thread(self._heads)
        return Backlog(max(0, self._kept - len(self._leases)), oldest(heads))

    async def weigh(self, app_name: str, weight: int) -> None:
        """Set the weight in memory."""
        await self._in_thread(lambda: self._messages.weigh(app_name, weight))

    async def bytes_of(self, app_name: str) -> int:
        """Return what the file counts since somebody has asked for the first time."""
        return await self._in_thread(lambda: self._messages.bytes_of(app_name))

    async def images(self) -> set[str] | None:
        """Read the messages in the order of their arrival, some at a time."""
        images: set[str] = set()
        last = 0
        while True:
            rows = await self._in_thread(lambda: self._messages.after(last))  # noqa: B023  # done when this returns
            if not rows:
                return images
            if (some := images_of(head for _, head in rows)) is None:
                return None
            images |= some
            last = rows[-1][0]
            await next_turn()

    async def close(self) -> None:
        """Close the file."""
        if self._timer is not None:
            self._timer.cancel()
        await self._background.join()  # what nobody waits for is given back first
        await self._in_thread(self._messages.close)
        self._thread.end()

    def _give_back(self, taking: asyncio.Task[tuple[list[Row], int | None]]) -> None:
        """Return at once what was just reserved, because nobody waits for it any more."""
        if taking.cancelled() or taking.exception() is not None:
            return
        for lease, _, _ in taking.result()[0]:
            self._background.run(self.release(lease))

    def _look_when_due(self, hidden_s: float | None) -> None:
        """Let :meth:`wait` end when the next hidden message is due."""
        now = self._clock.monotonic()
        due = [now + _LOOK_AGAIN_S, *self._leases.values()]
        if hidden_s is not None:
            due.append(now + max(0.0, hidden_s))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(min(due), self._readiness.change)

    # -- in the thread --------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work. A cancellation does not stop it; the caller only stops waiting."""
        try:
            return await self._thread.do(work)
        except (sqlite3.DataError, OverflowError) as exc:  # more bytes than SQLite keeps in one value
            raise StoreRefused(f"queue: {exc}") from exc
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"queue: {exc}") from exc

    def _open(self, now_ms: int) -> list[tuple[str, float]]:
        """Open the file; return the leases of an earlier run, with the seconds that are left of each."""
        self._messages = MessageFile(self._path)
        self._kept = self._messages.count()
        return [(lease, (visible_ms - now_ms) / 1000) for lease, visible_ms in self._messages.leases()]

    def _delete(self, leases: Sequence[str]) -> list[bool]:
        found = self._messages.delete(leases)
        self._messages.shrink()
        return found

    def _heads(self) -> list[bytes]:
        self._messages.shrink_more()
        return self._messages.heads()


class _Here:
    """Works at once, in the thread that asks: in memory that takes less than a hand-over to another one."""

    async def do(self, work: Callable[[], T]) -> T:
        """Return the result of the work."""
        return work()

    def end(self) -> None:
        """There is nothing to wait for."""
