"""Guards that were chosen by hand: what each change breaks is a promise of the design.

A guard is found by the function it is in and by its code, however that is formatted. Without code the whole body of the
function is replaced. The guards of the queue in Redis are texts of its script.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        breaks: What happens without it.
        module: Its module, without ``hearth.``.
        function: Qualified name of its function.
        code: What is replaced.
        instead: What stands there instead.
    """

    breaks: str
    module: str
    function: str
    code: str
    instead: str


_HAND_OVER = "waiter, _ = self.waiters.popitem(last=False)"
_CONSUMER = "async_calls.consumer"
_RUNS = "{run.lease: (call_id, run) for call_id, run in self._runs.items()}"

GUARDS = [
    # Cancels and redrives
    Guard(
        "a call that was cancelled through another node runs on",
        _CONSUMER,
        "Consumer._find_cancelled",
        "self.cancel(call_id)",
        "pass",
    ),
    Guard(
        "a call that was cancelled runs again",
        "async_calls.retries",
        "failure_of",
        "error is None or isinstance(error, CallCancelled)",
        "error is None",
    ),
    Guard(
        "a redrive that is repeated makes two calls",
        "server.redrives",
        "Redrives.redrive",
        "await self._store.claim_dead_letter(app_name, call_id, record.id)",
        "record.id",
    ),
    # Slots
    Guard(
        "a slot is lost when its wait is given up in the same tick",
        "agent.slots",
        "SlotQueue.acquire",
        "waiter.result().give_back(clean=True, used=False)",
        "pass",
    ),
    Guard(
        "the newest waiter is served first",
        "agent.slots",
        "SlotQueue.offer",
        _HAND_OVER,
        "waiter, _ = self.waiters.popitem(last=True)",
    ),
    Guard("a slot is handed to a call that gave up", "agent.slots", "SlotQueue.offer", "not waiter.done()", "True"),
    Guard(
        "the oldest slot is taken first",
        "agent.slots",
        "SlotQueue.acquire_nowait",
        "self.free.pop()",
        "self.free.pop(0)",
    ),
    Guard(
        "a call that gave up stays in line",
        "agent.slots",
        "SlotQueue.acquire",
        "self.waiters.pop(waiter, None)",
        "pass",
    ),
    Guard("a withdrawn slot is still offered", "agent.slots", "SlotQueue.withdraw", "self.free.remove(hot)", "pass"),
    Guard("a slot that was taken is withdrawn", "agent.slots", "SlotQueue.withdraw", "return False", "return True"),
    Guard("a slot is taken by two", "agent.hot", "HotContainer.lease", "self._life.enter(Stage.BUSY)", "pass"),
    Guard(
        "only one call hears of a failure", "agent.slots", "SlotQueue.fail_all", "range(len(self.waiters))", "range(1)"
    ),
    Guard("waiting calls get no slot", "agent.slots", "SlotQueue.offer", "waiter.set_result(hot)", "pass"),
    # Resources
    Guard(
        "a grant is lost when its wait is given up in the same tick",
        "agent.resources",
        "ResourceTracker.reserve",
        "waiter.future.result().release()",
        "pass",
    ),
    Guard(
        "a second release returns it again", "agent.resources", "Reservation.release", "self._tracker = None", "pass"
    ),
    Guard(
        "async calls use the reserve of sync calls",
        "agent.resources",
        "ResourceTracker._room",
        "shared + (self._reserve_total - self._reserve_used) if is_sync else shared",
        "shared + (self._reserve_total - self._reserve_used)",
    ),
    Guard(
        "the request behind one that gave up waits on",
        "agent.resources",
        "ResourceTracker.reserve",
        "self._serve()",
        "pass",
    ),
    Guard(
        "a request that gave up stays in line",
        "agent.resources",
        "ResourceTracker.reserve",
        "queue.remove(waiter)",
        "pass",
    ),
    Guard(
        "a request that fits overtakes those that wait",
        "agent.resources",
        "ResourceTracker.reserve_nowait",
        "self._sync if is_sync else self._async",
        "False",
    ),
    Guard(
        "more is granted than there is",
        "agent.resources",
        "ResourceTracker._serve",
        "queue[0].amount.fits(self._room(queue[0].is_sync))",
        "True",
    ),
    Guard(
        "sync calls stand in the line of async calls",
        "agent.resources",
        "ResourceTracker.reserve",
        "self._sync if is_sync else self._async",
        "self._async",
    ),
    Guard(
        "the reserve is not returned",
        "agent.resources",
        "ResourceTracker._take_back",
        "self._reserve_used -= reserve_part",
        "pass",
    ),
    Guard(
        "a part of the request is forgotten",
        "agent.resources",
        "ResourceTracker._grant",
        "amount - reserve_part",
        "NOTHING",
    ),
    Guard(
        "async use is never lowered",
        "agent.resources",
        "ResourceTracker._take_back",
        "self._async_used -= shared_part",
        "pass",
    ),
    # Calls and containers
    Guard(
        "a container serves on after a call that timed out",
        "contracts.stdio.exchange",
        "StdioExchange.is_clean",
        "",
        "return not self._dead",
    ),
    Guard(
        "requests are granted without a look at the room",
        "agent.resources",
        "ResourceTracker._room",
        "",
        "return self.total",
    ),
    Guard("idle containers keep their memory", "agent.hot", "HotContainer.evict", "", "return False"),
    # Records
    Guard(
        "a record that is lost counts as stored",
        "agent.recorder",
        "Recorder._give_up",
        "one.stored.set_result(False)",
        "one.stored.set_result(True)",
    ),
    Guard(
        "a record that the store refuses takes others with it",
        "agent.recorder",
        "Recorder._written",
        "self._background.start(self._write_apart())",
        "self._give_up(list(batch), error)",
    ),
    # Accepted calls
    Guard(
        "a client gets 202 although the queue did not take the call",
        "access.local",
        "LocalAcceptedCalls._push",
        "await self._queue.push(calls)",
        "pass",
    ),
    Guard(
        "the record is stored before the message",
        "access.local",
        "LocalAcceptedCalls._push",
        "await self._queue.push(calls)",
        "(await self._recorded(calls), await self._queue.push(calls))",
    ),
    Guard(
        "a client gets 202 although there is no record",
        "access.local",
        "LocalAcceptedCalls._enqueue_many",
        "await self._recorded(kept)",
        "await self._recorded(kept) or True",
    ),
    Guard(
        "a call that another node runs, or that has ended, is run again",
        "access.local",
        "LocalCallRecords.start",
        "raise AlreadyStarted(found)",
        "pass",
    ),
    Guard(
        "a message is forgotten before the end of its call is recorded",
        _CONSUMER,
        "Consumer._submitted",
        "end.is_stored or await self._stored_at_last(end)",
        "True",
    ),
    Guard(
        "a call whose node died while it ran is not ended",
        _CONSUMER,
        "Consumer._end_started",
        "await self._records.interrupted(call)",
        "pass",
    ),
    Guard(
        "a call is started under a lease that has ended",
        _CONSUMER,
        "Consumer._take_over",
        "self._clock.monotonic() >= run.until",
        "False",
    ),
    Guard(
        "a node that lost its lease ends what another runs",
        _CONSUMER,
        "Consumer._end_started",
        "await self._accepted.renew([run.lease]) != [True]",
        "False",
    ),
    Guard(
        "a node that was away ends calls that others ran",
        _CONSUMER,
        "Consumer._end_started",
        "self._clock.monotonic() < self._quiet_until",
        "False",
    ),
    Guard("a running call is failed", _CONSUMER, "Consumer._failed", "await self._take_over(call, run)", "pass"),
    Guard(
        "the leases of running calls are not renewed",
        _CONSUMER,
        "Consumer._renew_leases",
        _RUNS,
        _RUNS.replace("}", " if run.waiting}"),
    ),
    Guard(
        "the leases of waiting calls are not renewed",
        _CONSUMER,
        "Consumer._renew_leases",
        _RUNS,
        _RUNS.replace("}", " if not run.waiting}"),
    ),
    Guard("a renewed lease ends as before", _CONSUMER, "Consumer._renew_leases", "run.until = until", "pass"),
    Guard(
        "a call that is too large for the node is run there",
        _CONSUMER,
        "Consumer._active",
        "self._agent.check_capacity(spec)",
        "pass",
    ),
    Guard(
        "a call that is too large for every node waits for ever",
        _CONSUMER,
        "Consumer._ended",
        "reserved.deliveries < self._max_misfits",
        "True",
    ),
    Guard(
        "a message that nobody can read is run",
        _CONSUMER,
        "Consumer._active",
        "raise InvalidMessage(reserved.fault)",
        "pass",
    ),
    Guard(
        "a message that was not acknowledged is forgotten",
        "async_calls.acknowledger",
        "Acknowledger.flush",
        "return False",
        "break",
    ),
    # The queue in a file
    Guard(
        "an accepted call is not committed",
        "queues.message_file",
        "MessageFile.insert",
        "with self._db:\n    self._db.executemany(_INSERT, messages)",
        "self._db.executemany(_INSERT, messages)",
    ),
    Guard(
        "a later reservation has the same lease",
        "queues.message_file",
        "MessageFile.take",
        'f".{self._run}.{next(self._numbers)}"',
        '".1"',
    ),
    Guard(
        "a lease outlives the return of its message",
        "queues.message_file",
        "MessageFile.hide",
        "_HIDE",
        '"UPDATE messages SET ready = ?, visible_ms = ? WHERE lease = ? RETURNING app"',
    ),
    Guard("an app has two turns in a round", "queues.turns", "Turns.join", "app not in self._served", "True"),
    Guard(
        "a renewal is not kept",
        "queues.sqlite",
        "SqliteQueue.renew",
        "self._leases.update({lease: until for lease, known in zip(leases, found, strict=True) if known})",
        "pass",
    ),
    Guard(
        "a call has two messages",
        "queues.sqlite",
        "SqliteQueue.push",
        "NewMessage(call.priority, not call.delay, now_ms + call.delay * 1000, message, call.id, call.app_name)",
        "NewMessage(call.priority, not call.delay, now_ms + call.delay * 1000, message, None, call.app_name)",
    ),
]

#: Of the script of the queue in Redis: what happens without it, the text, and what stands there instead.
TEXTS_OF_REDIS = [
    (
        "an earlier lease is taken for the current one",
        ' and redis.call("HGET", deliveries, name) == delivery then',
        " then",
    ),
    ("a lease outlives the return of its message", 'redis.call("ZSCORE", leased, name) and ', ""),
    ("a renewal is not kept", 'redis.call("ZADD", leased, until_ms, name)', ""),
    ("a call has two messages", 'redis.call("HEXISTS", names, id) == 0', "true"),
    ("an app has two turns in a round", 'not redis.call("ZSCORE", served, app)', "true"),
]
