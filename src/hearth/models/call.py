"""A call: the record that a client can read. It holds no socket and no task."""

from __future__ import annotations

import datetime as dt
from typing import Final, Self

import msgspec

from hearth.models.call_result import CallResult, HeaderFields
from hearth.models.function import ASYNC, DEFAULT, SYNC, FunctionSpec
from hearth.models.retry import Attempt, RetryPolicy
from hearth.models.secret import ENV, FILES
from hearth.models.times import ZERO

#: Header names with all their values, in order.
HeaderMap = dict[str, list[str]]

QUEUED: Final = "queued"
RUNNING: Final = "running"
SUCCESS: Final = "success"
ERROR: Final = "error"
TIMEOUT: Final = "timeout"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"

#: Every status, in the order of a call's life.
STATUSES: Final = (QUEUED, RUNNING, SUCCESS, ERROR, TIMEOUT, EXPIRED, CANCELLED)

#: Statuses that never change again.
FINAL: Final = frozenset({SUCCESS, ERROR, TIMEOUT, EXPIRED, CANCELLED})

#: The nine metrics of a stats sample, in the order they are documented.
STAT_NAMES: Final = (
    "net_rx",
    "net_tx",
    "mem_limit",
    "mem_usage",
    "disk_read",
    "disk_write",
    "cpu_user",
    "cpu_total",
    "cpu_kernel",
)


class Stat(msgspec.Struct, frozen=True):
    """One sample of a container's resource use; values are unsigned integers."""

    timestamp: dt.datetime
    metrics: dict[str, int]


class Call(msgspec.Struct, kw_only=True):
    """One invocation: the request, and its outcome.

    The stored fields (id, status, app_name, app_id, path, times, stats, error, response_status) outlive the call; the
    others travel with an accepted async call through the queue. ``memory`` is MiB, ``timeout``, ``idle_timeout`` and
    ``delay`` are seconds.

    ``app_id`` is the identity of the app that the call belongs to: an app that is deleted and created again has another
    one. It is empty if the app has no id. ``response_status`` is the HTTP status of the call's answer, for an async
    call the one that a sync caller would have received; 0 while there is none.

    ``secrets`` are the names of the secrets that its function gets, and ``secrets_as`` is how. No call has the values.

    Of an async call ``result`` is the answer when it has ended, until both are stored; ``result_ttl`` are the seconds
    for which it is kept (0: as the node says), ``result_headers`` the header fields that its route adds to it, and
    ``result_digest`` belongs to the token that allows to read it (empty: none does).

    ``on_success`` and ``on_failure`` are where its record is sent when it has ended; empty: nowhere.

    ``trigger_id`` is the trigger through which a fn was called, ``syslog_url`` the syslog server of its app.

    ``retry`` says when it is run again, ``attempt`` is the number of the attempt that is next, runs, or was the last (0
    where there is no policy), ``attempts`` are the past ones, and ``earlier_deliveries`` is how often the queue had
    handed the call out by their end. A call that has not started at ``expires_at`` ends then.

    ``dead_letters`` says whether it joins the dead letters of its app if it fails (``None``: if it has a policy of
    retries), ``dead`` that it has. The message of an ``unreadable`` call could not be read: the payload is that.

    ``max_queued`` is how many calls of its function may be queued when it is accepted, ``max_concurrent`` how many may
    run on one node (0: any number). ``max_instances`` is how many containers of its function a node may have (0: any).

    ``origin`` says what made a call that no client has sent: ``redrive ID`` or ``schedule NAME``.
    """

    id: str
    app_name: str
    path: str
    status: str = ""
    image: str = ""
    delay: int = 0
    type: str = SYNC
    format: str = DEFAULT
    payload: bytes = b""
    url: str = ""
    method: str = ""
    priority: int = 0
    timeout: int = 0
    idle_timeout: int = 0
    memory: int = 0
    cpu_milli: int = 0
    config: dict[str, str] = msgspec.field(default_factory=dict)
    headers: HeaderMap = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    started_at: dt.datetime = ZERO
    completed_at: dt.datetime = ZERO
    stats: list[Stat] = msgspec.field(default_factory=list)
    error: str = ""
    app_id: str = ""
    response_status: int = 0
    secrets: list[str] = msgspec.field(default_factory=list)
    secrets_as: str = ENV
    result: CallResult | None = None
    result_ttl: int = 0
    result_headers: HeaderFields = ()
    result_digest: str = ""
    retry: RetryPolicy | None = None
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    earlier_deliveries: int = 0
    expires_at: dt.datetime = ZERO
    trigger_id: str = ""
    syslog_url: str = ""
    origin: str = ""
    dead_letters: bool | None = None
    dead: bool = False
    unreadable: bool = False
    max_queued: int = 0
    max_concurrent: int = 0
    max_instances: int = 0
    on_success: str = ""
    on_failure: str = ""

    @classmethod
    def of(
        cls,
        spec: FunctionSpec,
        call_id: str,
        created_at: dt.datetime,
        *,
        method: str,
        url: str,
        headers: HeaderMap,
    ) -> Self:
        """Return the record of a new call of a function."""
        ref, amount = spec.ref, spec.amount
        return cls(
            id=call_id,
            app_name=ref.app_name,
            app_id=ref.app_id,
            path=ref.name,
            image=spec.image,
            type=SYNC if spec.is_sync else ASYNC,
            format=spec.contract,
            timeout=spec.timeout_s,
            idle_timeout=spec.idle_timeout_s,
            memory=amount.memory_mib,
            cpu_milli=amount.cpu_milli,
            config=spec.environment,
            secrets=sorted(spec.secrets.values),
            secrets_as=FILES if spec.secrets_as_files else ENV,
            headers=headers,
            url=url,
            method=method,
            created_at=created_at,
            syslog_url=spec.syslog_url,
            max_instances=spec.max_instances,
        )

    @property
    def joins_dead_letters(self) -> bool:
        """True if it is kept with its payload should it fail."""
        return (self.retry is not None or self.unreadable) if self.dead_letters is None else self.dead_letters

    def has_expired(self, now: dt.datetime) -> bool:
        """Return whether the call must not start any more; one that has been tried before may."""
        return self.expires_at != ZERO and now >= self.expires_at and self.attempt <= 1

    def not_before(self, now: dt.datetime) -> dt.datetime:
        """Return a time for this record: now, or the newest one that it has.

        Its other times may come from the clock of another node, or from this one's before it was set back.
        """
        return max(now, self.created_at, self.started_at)
