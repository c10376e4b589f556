"""A hot container that runs several calls at once (``concurrency`` above 1).

It has as many slots as it may run calls, each with a connection of its own, so an answer cannot reach another call. The
calls share its process, its memory and its end:

* BUSY is a container with at least one call; only IDLE ones give way to other functions.
* A call that is cancelled or late ends alone: the function sees the end of its connection. Its slot rests until the
  function has ended it, too. If it does not, the container takes no further call and ends after the others.
* An answer that breaks the contract retires the container after the calls that run.
* What it writes belongs to a call only where the line says so: see :class:`SharedStderr`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from hearth.agent.call import ActiveCall, CallLog, LineLog
from hearth.agent.frost import Frost
from hearth.agent.hot import HotContainer
from hearth.agent.probation import PROBATION_ANSWERS
from hearth.agent.states import Stage
from hearth.agent.stderr import WINDOW_S, ContainerStderr
from hearth.aio.clock import Clock
from hearth.contracts.base import Exchange
from hearth.drivers.base import ByteReader, Container, Exit, StatsSample
from hearth.telemetry.app_syslog import Drain

#: The variables by which Fn's kits mark where the log of a call begins, and the header that names the call.
_FRAME: Final = "FN_LOGFRAME_NAME"
_FRAME_HEADER: Final = "FN_LOGFRAME_HDR"
_CALL_ID: Final = "Fn-Call-Id"
#: The longest part of a line that is kept until its end comes.
_LINE_BYTES: Final = 64 * 1024


class SharedSlot:
    """The right to run one of the calls of a shared container.

    Attributes:
        hot: The container.
        call: The call that runs; ``None`` before it is attended, and between calls.
    """

    __slots__ = ("call", "hot")

    def __init__(self, hot: SharedContainer) -> None:
        self.hot = hot
        self.call: ActiveCall | None = None

    def __repr__(self) -> str:
        return f"<SharedSlot of {self.hot!r} busy={self.call is not None}>"

    @property
    def served(self) -> int:
        """Return how many exchanges have ended well on its container."""
        return self.hot.served

    @property
    def container(self) -> Container:
        """Return the container."""
        return self.hot.container

    @property
    def frost(self) -> Frost | None:
        """Return what freezes the container; ``None`` if nothing does."""
        return self.hot.frost

    @property
    def stderr(self) -> ContainerStderr:
        """Return what the container writes to stderr."""
        return self.hot.stderr

    def lease(self) -> None:
        """Take it: one of the container's calls is the holder's."""
        self.hot.begin()

    def attend(self, call: ActiveCall) -> Exchange:
        """Let the call that holds the slot have what the container writes and uses. Return its exchange."""
        self.call = call
        return self.hot.attend(call)

    def give_back(self, *, clean: bool, used: bool) -> None:
        """End the lease: offer the slot again, or retire the container."""
        call, self.call = self.call, None
        self.hot.end(self, call, clean=clean, used=used)


class SharedContainer(HotContainer):
    """One container that serves several calls at once, each on a slot of its own.

    Attributes:
        calls: The calls that run.
        resting: The slots of calls that were given up, and that the function has not ended yet.
    """

    stderr: SharedStderr

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._slots = dict.fromkeys(SharedSlot(self) for _ in range(self.function.spec.concurrency))
        self.resting: list[SharedSlot] = []
        self._attended: dict[str, ActiveCall] = {}
        self.calls = 0
        self._mark = secrets.token_hex(8)
        self._meter = self.function.containers.slots()

    def __repr__(self) -> str:
        return f"<SharedContainer {self._life.stage.value} calls={self.calls} served={self.served}>"

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), _FRAME: self._mark, _FRAME_HEADER: _CALL_ID}

    def _stderr_of(self, container: Container, between: LineLog) -> SharedStderr:
        host = self._host
        lags = host.driver.capabilities.stderr_lags
        return SharedStderr(container.stderr, host.clock, between, lags=lags, mark=self._mark, drain=self._drain)

    def _serve(self, container: Container) -> None:
        container.channel.share(self._call_left)
        super()._serve(container)

    def _offer(self) -> None:
        """Turn idle for the first time, and offer every slot."""
        self._turn_idle()
        for slot in self._slots:
            self._queue.offer(slot)
        self._count_slots()
        self._note_idle()

    def _withdraw(self) -> None:
        self._queue.withdraw_all(self._slots)

    def _stop_serving(self) -> None:
        super()._stop_serving()
        self._meter.set(0, 0)

    def gone(self) -> None:
        """Note that its task has ended. Idempotent."""
        self._slots.clear()  # they hold this, which would hold them
        self.resting.clear()
        super().gone()

    def _count_slots(self) -> None:
        """Export how many slots calls hold, those that were given up too, and how many are free."""
        taken = self.calls + len(self.resting)
        takes_calls = self._life.stage is Stage.IDLE or self._life.stage is Stage.BUSY
        self._meter.set(taken, len(self._slots) - taken if takes_calls else 0)

    # -- the leases -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Note one more call."""
        self.calls += 1
        if self._life.stage is Stage.IDLE:
            self._life.enter(Stage.BUSY)
            self._host.standby.idle.pop(self, None)
            self._queue.prefer(self._slots)  # others become idle, and age out
        self._count_slots()

    def attend(self, call: ActiveCall) -> Exchange:
        """Let a call have its marked lines, and what the container uses. Return its exchange."""
        self._attended[call.record.id] = call
        self.stderr.begin(call.record.id, call.log)
        served, function = self.served, self.function
        is_watched = served <= PROBATION_ANSWERS or function.ref in self._host.probation.suspects
        return function.contract.exchange(call, self.container, fresh=served == 0, on_probation=is_watched)

    def end(self, slot: SharedSlot, call: ActiveCall | None, *, clean: bool, used: bool) -> None:
        """Note that a call has ended, and offer its slot again, unless the function may still run it.

        Args:
            slot: The slot of the call.
            call: The call; ``None`` if it never reached the function.
            clean: The container may serve another call.
            used: Something passed between them.
        """
        self.calls -= 1
        if call is not None:
            self._attended.pop(call.record.id, None)
            self.stderr.end(call.record.id)
        if not clean:
            self.retire("exchange was not clean")
        elif used:
            self.served += 1
            if self.stderr.opens:
                self.stderr.end_opening()
        if self._life.stage is Stage.LAST and not self.calls:
            self._remove()
        elif self.container.channel.left > len(self.resting):
            self.resting.append(slot)
        else:
            self._free(slot)
        self._count_slots()

    def retire(self, reason: str) -> None:
        """Take no further call; the container's task removes it, after the calls that run. Idempotent."""
        super().retire(reason)
        if self._life.stage is Stage.LAST and not self.calls:
            self._remove()
        self._count_slots()

    def _call_left(self, in_time: bool) -> None:
        """Note that the function has ended a call that was given up, or that it does not end it."""
        if not in_time:
            self.retire("a call that was given up did not end")
        while len(self.resting) > self.container.channel.left:
            self._free(self.resting.pop())
        self._count_slots()

    def _free(self, slot: SharedSlot) -> None:
        if self._life.stage is not Stage.BUSY:
            return
        if not self.calls and not self.resting:
            self._turn_idle()
        self._queue.offer(slot)
        self._note_idle()

    def _turn_idle(self) -> None:
        self._life.enter(Stage.IDLE)
        if self._idle_timer is None:
            self._arm(self.idle_since)

    def _note_idle(self) -> None:
        """Note that it has no call, unless one has waited for it."""
        if self._life.stage is not Stage.IDLE:
            return
        standby = self._host.standby
        standby.idle[self] = None
        if self.frost is not None:
            self.frost.note_idle(self.idle_since)
        if self._owner.attends_idle or standby.is_short:
            self._owner.container_idle(self)

    # -- what happens to it ---------------------------------------------------------------------

    def _exited(self, ended: Exit) -> None:
        super()._exited(ended)
        if self._life.stage is Stage.BUSY:
            self.retire("exited")

    def _take_sample(self, sample: StatsSample) -> None:
        super()._take_sample(sample)
        for call in self._attended.values():
            call.samples.append(sample)


class SharedStderr(ContainerStderr):
    """The stderr of a container that runs several calls at once.

    A line that begins with ``MARK=CALL_ID`` and a space belongs to that call. ``MARK`` is drawn for each container, so
    what a client sends, and a function prints, cannot pass for the line of another call. Fn's kits print the mark alone
    on a line when a call begins; nothing tells which of the calls at once the next lines belong to. Those, like all
    others, are the container's: they go to the server's log.

    Args:
        mark: The mark.
    """

    __slots__ = ("_ended", "_mark", "_partial", "_running")

    def __init__(
        self, reader: ByteReader, clock: Clock, between: LineLog, *, lags: bool, mark: str, drain: Drain | None = None
    ) -> None:
        self._mark = f"{mark}=".encode()
        self._partial = b""
        self._running: dict[str, CallLog] = {}
        self._ended: dict[str, tuple[float, CallLog]] = {}
        super().__init__(reader, clock, between, lags=lags, drain=drain)

    def begin(self, call_id: str, log: CallLog) -> None:
        """Give the marked lines of a call to its log."""
        self._running[call_id] = log

    def end(self, call_id: str) -> None:
        """End the turn of a call. Where stderr lags, what comes in the next moment is still the call's."""
        log = self._running.pop(call_id, None)
        if log is None or not self.lags:
            return
        now = self._clock.monotonic()
        self._ended[call_id] = (now + WINDOW_S, log)
        for old in [old for old, (until, _) in self._ended.items() if until < now]:
            del self._ended[old]

    def _take(self, data: bytes) -> None:
        if not data:
            if self._partial:
                self._give(self._partial)
                self._partial = b""
            self._running.clear()
            self._ended.clear()
            self._end()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._give(line + b"\n")
        if len(self._partial) > _LINE_BYTES:
            self._give(self._partial)
            self._partial = b""

    def _give(self, line: bytes) -> None:
        if line.startswith(self._mark):
            name, _, text = line[len(self._mark) :].partition(b" ")
            if not text:
                return  # where the log of a call begins
            call_id = name.decode("latin-1")
            log = self._running.get(call_id)
            if log is None and call_id in self._ended:
                log = self._ended[call_id][1]
            if log is not None:
                log.write(text)
                if self._drain is not None:
                    self._drain.write(text, call_id)
                return
            line = text
        self.between.write(line)
        if self._drain is not None:
            self._drain.write(line)
        if self.opens and not self._running:
            self._note_opening(line)
