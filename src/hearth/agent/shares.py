"""The share that each app has of a node: what it uses now, and the quotas that limit it.

A quota of an app counts on this node only.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from hearth.models.errors import BodyOverQuota, BodyTooLarge, QuotaExceeded, ServerBusy, fresh
from hearth.models.function import NOTHING, Amount, FunctionRef
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import QUOTA_REFUSALS

#: Seconds after which a call may try again that another one of its app kept out: nobody knows when that one ends.
_AGAIN_S: Final = 1
#: Accepted calls leave this part of the calls in progress to sync ones, whose clients wait.
_SYNC_PART: Final = 5
#: A part of a call that rounding may cost.
_ROUNDING: Final = 1e-9


class Bucket:
    """A token bucket: it fills at a constant rate, and each call takes a token.

    Args:
        rate: Tokens per second.
        burst: Tokens that it holds when it is full.
    """

    __slots__ = ("_burst", "_rate", "_since", "_tokens")

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._since = -math.inf

    def __repr__(self) -> str:
        return f"<Bucket {self._tokens:.1f} of {self._burst}, {self._rate} per second>"

    def take(self, now: float) -> float:
        """Take a token. Return 0, or the seconds after which there is one if there is none.

        Args:
            now: The loop time.
        """
        tokens = min(self._burst, self._tokens + max(0.0, now - self._since) * self._rate)
        self._since = now
        if tokens < 1.0 - _ROUNDING:
            self._tokens = tokens
            return (1.0 - tokens) / self._rate
        self._tokens = tokens - 1.0
        return 0.0


class WaitingLine:
    """The sync calls of one app that wait for a container; ``with line`` counts one, and makes no object for it.

    Args:
        app: The name of the app, for errors.
        refused: Counts a refusal by the name of its quota.

    Attributes:
        most: The most that may wait; ``None`` for any number.
    """

    __slots__ = ("_app", "_refused", "_waiting", "most")

    def __init__(self, app: str, refused: Callable[[str, str], None]) -> None:
        self.most: int | None = None
        self._app = app
        self._refused = refused
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<WaitingLine {self._app} waiting={self._waiting}>"

    def __enter__(self) -> None:
        """Count a call.

        Raises:
            QuotaExceeded: Too many calls of its app wait.
        """
        if self.most is not None and self._waiting >= self.most:
            self._refused(self._app, "waiting_calls")
            raise QuotaExceeded(self._app, "waiting_calls", self.most, _AGAIN_S)
        self._waiting += 1

    def __exit__(self, *exc_info: object) -> None:
        self._waiting -= 1


class Share:
    """Use and quotas of one app on a node.

    Args:
        app: The name of the app, for errors.
        refused: Counts a refusal by the name of its quota.
        changed: Called when other quotas are in force.

    Attributes:
        quotas: The quotas in force: its own over the defaults of the node.
        used: The memory and CPU of its containers; the resource tracker changes it.
        running: Sync calls in progress, and async calls that run, since the app has a quota of them.
        line: Counts the sync calls that wait for a container.
    """

    __slots__ = (
        "__weakref__",
        "_app",
        "_bucket",
        "_changed",
        "_delivered_mib",
        "_refused",
        "_waiters",
        "line",
        "quotas",
        "running",
        "used",
    )

    def __init__(
        self,
        app: str,
        refused: Callable[[str, str], None] = lambda app, quota: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._changed = changed
        self.quotas = NO_QUOTAS
        self.used = NOTHING
        self.running = 0
        self._app = app
        self._refused = refused
        self._bucket: Bucket | None = None
        self._delivered_mib = 0
        self.line = WaitingLine(app, refused)
        self._waiters: OrderedDict[asyncio.Future[None], int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Share {self._app} used={self.used} running={self.running} waiting={len(self._waiters)}>"

    @property
    def weight(self) -> int:
        """Its weight when apps compete for memory."""
        return self.quotas.weight or 1

    @property
    def limits_calls(self) -> bool:
        """True if its calls are to be admitted one by one."""
        return self.quotas.concurrent_calls is not None or self._bucket is not None

    @property
    def limits_delivery(self) -> bool:
        """True if accepted calls may have to wait for their delivery."""
        return self.quotas.concurrent_calls is not None or self.quotas.memory_mib is not None

    def set_quotas(self, quotas: Quotas) -> None:
        """Let other quotas be in force. A bucket whose quota stays keeps its tokens."""
        before, self.quotas = self.quotas, quotas
        if quotas == before:
            return
        self.line.most = quotas.waiting_calls
        rate, burst = quotas.calls_per_second, quotas.burst
        if (rate, burst) != (before.calls_per_second, before.burst):
            self._bucket = Bucket(rate, burst or rate) if rate else None
        self._deliver()
        self._changed()

    # -- memory ------------------------------------------------------------------------------

    def lacks_mib(self, amount: Amount) -> int:
        """Return by how much another amount would exceed its memory quota, in MiB; not above 0: it would not."""
        quota = self.quotas.memory_mib
        return 0 if quota is None else self.used.memory_mib + amount.memory_mib - quota

    def check_memory(self, amount: Amount) -> None:
        """Check that its memory quota allows a container of this size at all.

        Raises:
            QuotaExceeded: It never does.
        """
        quota = self.quotas.memory_mib
        if quota is not None and amount.memory_mib > quota:
            raise self.refusal("memory_mib", quota, None)

    def crowded(self, amount: Amount) -> QuotaExceeded | None:
        """Return the error of a call that got no container in time; ``None`` if its quota leaves room."""
        quota = self.quotas.memory_mib
        return self.refusal("memory_mib", quota, _AGAIN_S) if quota is not None and self.lacks_mib(amount) > 0 else None

    # -- calls ------------------------------------------------------------------------------

    def admit(self, now: float) -> None:
        """Count a sync call in; :meth:`leave` follows.

        Raises:
            QuotaExceeded: One of the quotas of its app is used up.
        """
        quota = self.quotas.concurrent_calls
        if quota is not None and self.running >= quota:
            raise self.refusal("concurrent_calls", quota, _AGAIN_S)
        self.accept(now)
        self.running += 1

    def accept(self, now: float) -> None:
        """Take a token for a call that is accepted.

        Raises:
            QuotaExceeded: There is none.
        """
        if self._bucket is not None and (wait_s := self._bucket.take(now)):
            raise self.refusal("calls_per_second", self.quotas.calls_per_second or 0, math.ceil(wait_s))

    def leave(self) -> None:
        """Count a call out that was admitted."""
        self.running -= 1
        self._deliver()

    async def deliver(self, amount: Amount) -> None:
        """Wait until the quotas leave room for an accepted call, in order of arrival; :meth:`delivered` follows.

        A cancelled wait leaves no trace.

        Raises:
            ServerBusy: The node takes no call any more.
        """
        if self.deliver_nowait(amount):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = amount.memory_mib
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiters.pop(waiter, None) is None and waiter.done() and not waiter.cancelled():
                self.delivered(amount)  # let in in the very tick in which it gave up
            else:
                self._deliver()  # it may have been the first, which held the others up
            raise

    def deliver_nowait(self, amount: Amount) -> bool:
        """Count an accepted call in if the quotas leave room and no other waits."""
        if self._waiters or not self._has_room(amount.memory_mib):
            return False
        self._enter(amount.memory_mib)
        return True

    def delivered(self, amount: Amount) -> None:
        """Count an accepted call out that was let in."""
        self._delivered_mib -= amount.memory_mib
        self.leave()

    def fail_all(self, error: ServerBusy) -> None:
        """End the wait of accepted calls."""
        waiters, self._waiters = self._waiters, OrderedDict()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(fresh(error))

    def refusal(self, quota: str, value: int, retry_after_s: int | None) -> QuotaExceeded:
        """Count a refusal, and return its error."""
        self._refused(self._app, quota)
        return QuotaExceeded(self._app, quota, value, retry_after_s)

    def oversized(self, exc: BodyTooLarge) -> BodyOverQuota:
        """Count a refusal of a body, and return its error."""
        self._refused(self._app, "request_bytes")
        return BodyOverQuota(self._app, exc.length, exc.limit)

    def _has_room(self, memory_mib: int) -> bool:
        calls, most_mib = self.quotas.concurrent_calls, self.quotas.memory_mib
        if calls is not None and self.running >= calls - calls // _SYNC_PART:
            return False
        # One that exceeds the quota alone is let in alone, so that it ends with its error.
        return most_mib is None or not self._delivered_mib or self._delivered_mib + memory_mib <= most_mib

    def _enter(self, memory_mib: int) -> None:
        self.running += 1
        self._delivered_mib += memory_mib

    def _deliver(self) -> None:
        while self._waiters:
            waiter, memory_mib = next(iter(self._waiters.items()))
            if waiter.done():
                del self._waiters[waiter]
            elif self._has_room(memory_mib):
                del self._waiters[waiter]
                self._enter(memory_mib)
                waiter.set_result(None)
            else:
                return


class Shares:
    """The shares of all apps of a node. A share lives for as long as a function, a call or a container refers to it.

    Args:
        defaults: The quotas of apps that have none of their own.
        metrics: Count refusals.
        changed: Called when other quotas are in force for an app.
    """

    def __init__(self, defaults: Quotas, metrics: Metrics, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._defaults = NO_QUOTAS.over(defaults)
        self._refusals = {quota: metrics.counter(name) for quota, name in QUOTA_REFUSALS.items()}
        self._shares: weakref.WeakValueDictionary[str, Share] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Shares apps={len(self._shares)}>"

    def of(self, ref: FunctionRef) -> Share:
        """Return the share of a function's app."""
        share = self._shares.get(ref.app)
        if share is None:
            share = self._shares[ref.app] = Share(ref.app_name, self._refused, self._changed)
            share.set_quotas(self._defaults)
        return share

    def fail_all(self, error: ServerBusy) -> None:
        """End the wait of accepted calls of all apps."""
        for share in list(self._shares.values()):
            share.fail_all(error)

    def in_force(self, quotas: Quotas) -> Quotas:
        """Return the quotas that hold on this node for an app with quotas of its own."""
        return quotas.over(self._defaults)

    def _refused(self, app: str, quota: str) -> None:
        self._refusals[quota].series(app).value += 1
