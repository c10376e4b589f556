"""The stored world of a runner: over HTTP, through an API node (nodes specification 2)."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from hearth.access.base import AcceptedCalls, AlreadyStarted, CallRecords, EndedCall, StoredWorld
from hearth.access.remote import protocol
from hearth.access.remote.client import LIMIT_S, ApiClient, RemoteRefusal
from hearth.access.remote.fns import RemoteFns
from hearth.access.remote.images import RemoteImages
from hearth.access.remote.outbox import Outbox
from hearth.access.remote.spool import Spool
from hearth.aio.clock import Clock, pause
from hearth.aio.group_commit import GroupCommit
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.errors import (
    ApiError,
    ApiNodeAway,
    AppsNotFound,
    IdempotencyUnavailable,
    InternalError,
    InvalidJSON,
    SecretGone,
    SecretUnreadable,
    StoreUnavailable,
)
from hearth.models.idempotency import Claim, KeyEnd, StoredKey
from hearth.models.image import Pin
from hearth.models.instances import NONE_KEPT_READY, KeptReady
from hearth.models.message import INSIDE_BYTES, encode_call, encode_plain
from hearth.models.node import NodeReport
from hearth.models.route import Route
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.models.token import Token
from hearth.queues.base import VISIBILITY_TIMEOUT_S, Reserved
from hearth.telemetry import redaction
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

T = TypeVar("T")

_POLL_S: Final = 30.0
#: Seconds beyond that for the answer to a poll.
_POLL_SLACK_S: Final = 10.0
#: Seconds for the start of a call. It may be stored although its answer is late.
_START_S: Final = 60.0
#: Seconds until the next request for calls to an API node that gives no leases: a newer one may have replaced it.
_WITHOUT_LEASES_S: Final = 600.0
#: Seconds for the check of a token: its caller waits.
_TOKEN_S: Final = 5.0
_NO_SUCH_REQUEST: Final = frozenset({404, 405})

_log = get_logger(__name__)


@contextlib.asynccontextmanager
async def open_remote(
    base: str,
    clock: Clock,
    *,
    token: str,
    tls: ssl.SSLContext | None = None,
    connect_s: float,
    spool: Path,
    spool_bytes: int,
    bundles: Path | None = None,
    telemetry: Telemetry,
    limit_s: float = LIMIT_S,
) -> AsyncIterator[StoredWorld]:
    """Open the stored world of a runner, without a request. Leaving it tries to deliver what is in the spool.

    Raises:
        StartUpError: The spool cannot be opened.
    """
    async with contextlib.AsyncExitStack() as stack:
        kept = await Spool.open(spool, spool_bytes)
        stack.push_async_callback(kept.close)
        client = await stack.enter_async_context(
            ApiClient(base, clock, telemetry.tracing, token=token, tls=tls, connect_s=connect_s, limit_s=limit_s)
        )
        outbox = await stack.enter_async_context(Outbox(client, kept, clock, telemetry.metrics))
        records = RemoteCallRecords(client, outbox)
        stack.push_async_callback(records.close)
        tokens = RemoteTokens(client)
        stack.push_async_callback(tokens.close)
        yield StoredWorld(
            RemoteDefinitions(client),
            records,
            RemoteAcceptedCalls(client, outbox, clock),
            RemoteSecrets(client),
            tokens,
            RemoteFns(client),
            RemotePins(client),
            None if bundles is None else RemoteImages(client, clock, bundles).fetch,
            RemoteIdempotencyKeys(client),
            RemoteReady(client),
            RemoteFleet(client).report,
        )


class RemoteDefinitions:
    """Definitions as the API node has them now."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get_app(self, name: str) -> App:
        """Return the app from the API node."""
        with self._client.span("hybrid_client_get_app", name):
            return await self._client.ask("GET", f"apps/{_segment(name)}", lambda data: protocol.decode_app(data, name))

    async def get_route(self, app_name: str, path: str) -> Route:
        """Return the route from the API node."""
        where = f"apps/{_segment(app_name)}/routes/{_path(path)}"
        with self._client.span("hybrid_client_get_route", app_name, path):
            return await self._client.ask("GET", where, lambda data: protocol.decode_route(data, app_name, path))


class RemoteFleet:
    """The fleet, as the API node knows it."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def report(self, report: NodeReport) -> bool:
        """Report this node to the API node; return whether it is to drain. The next report is the retry."""
        body = msgspec.json.encode(report)
        return await self._client.ask("POST", "runner/report", protocol.decode_drain, body, attempts=1)


class RemotePins:
    """Digests of images, for the API node to store."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def pin(self, pin: Pin) -> bool:
        """Store the digest at the API node; an older one does not."""
        try:
            await self._client.ask("POST", "runner/pin", protocol.read_done, protocol.encode(protocol.Pinned(*pin)))
        except ApiError as exc:
            if exc.code not in _NO_SUCH_REQUEST:
                raise
            return False
        return True


class RemoteReady:
    """The functions that keep containers ready, as the API node has them now."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def kept_ready(self) -> KeptReady:
        """Ask the API node. An older one knows of none."""
        with self._client.span("hybrid_client_kept_ready"):
            try:
                return await self._client.ask("GET", "runner/ready", protocol.decode_ready)
            except ApiError as exc:
                if exc.code not in _NO_SUCH_REQUEST:
                    raise
                return NONE_KEPT_READY


class RemoteIdempotencyKeys:
    """Idempotency keys at the API node, by its clock."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def claim(self, claim: Claim) -> StoredKey:
        """Claim at the API node. An older one has no keys."""
        with self._client.span("hybrid_client_claim_key", claim.app_name):
            try:
                return await self._ask(protocol.decode_key, protocol.encode(protocol.KeyRequest(claim=claim)))
            except ApiError as exc:
                if exc.code not in _NO_SUCH_REQUEST:
                    raise
                raise IdempotencyUnavailable from exc

    async def renew(self, held: Sequence[tuple[str, str]]) -> None:
        """Renew at the API node."""
        await self._ask(protocol.read_done, protocol.encode(protocol.KeyRequest(renew=list(held))))

    async def end(self, end: KeyEnd) -> bool:
        """Store the end at the API node."""
        return await self._ask(
            lambda data: protocol.decode(data, protocol.Ended).is_ended, protocol.encode_key_end(end)
        )

    async def _ask(self, read: Callable[[bytes], T], body: bytes) -> T:
        return await self._client.ask("POST", "runner/keys", read, body)


class RemoteSecrets:
    """Secrets as the API node has them now. No disk of the runner holds them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        """Return the secrets from the API node."""
        wanted = protocol.WantedSecrets(app_name, app_id, sorted(set(names)))
        if not wanted.names:
            return NO_SECRETS
        with self._client.span("hybrid_client_get_secrets", app_name):
            given = await self._client.ask(
                "POST",
                "runner/secrets",
                lambda data: protocol.decode(data, protocol.GivenSecrets),
                protocol.encode(wanted),
            )
        if (unavailable := given.unavailable) is not None:
            if unavailable.reason:
                raise SecretUnreadable(app_name, unavailable.name, unavailable.reason)
            raise SecretGone(app_name, unavailable.name)
        for name in wanted.names:
            if name not in given.values or name not in given.versions:
                raise ApiNodeAway
        redaction.hide_values(given.values.values())
        return SecretValues(given.values, given.versions)


class RemoteTokens:
    """Stored tokens as the API node has them now. Those of callers that come together are asked for together."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._finding = GroupCommit(self._find_many, max_batch=100)

    async def close(self) -> None:
        """Wait until all are answered."""
        await self._finding.close()

    async def find_token(self, digest: str) -> Token | None:
        """Return the token from the API node, which notes that it was used."""
        with self._client.span("hybrid_client_get_token"):
            found = await self._finding.put(digest)
        if isinstance(found, StoreUnavailable):
            raise found
        return found

    async def _find_many(self, digests: list[str]) -> Sequence[Token | StoreUnavailable | None]:
        wanted = protocol.encode(protocol.WantedTokens(digests))
        try:
            return await self._client.ask(
                "POST", "runner/tokens", lambda data: protocol.decode_tokens(data, digests), wanted, limit_s=_TOKEN_S
            )
        except StoreUnavailable:
            raise
        except ApiError as exc:
            raise StoreUnavailable(f"the API node does not check tokens: {exc}") from exc


class RemoteCallRecords(CallRecords):
    """Records at the API node. While it is away, this node keeps the ends of calls, up to a limit."""

    def __init__(self, client: ApiClient, outbox: Outbox) -> None:
        self._client = client
        self._outbox = outbox
        self._starting = GroupCommit(self._start_many, max_batch=100)
        self._admitted = False

    async def close(self) -> None:
        """Wait until all starts are stored."""
        await self._starting.close()

    @property
    def has_room(self) -> bool:
        """True if this node could keep the ends of further calls while the API node is away."""
        return self._outbox.has_room

    async def check(self) -> None:
        """Check that the API node has accepted this runner once, and that the ends of calls can be kept.

        An API node that is away later does not count: all its runners would leave their balancer, although they serve.

        Raises:
            ApiError: The API node refuses the secret, or has never answered.
            InternalError: The spool is full, or its disk fails.
        """
        if not self._admitted:
            nothing = protocol.encode(protocol.Leases([]))  # reaches neither queue nor database
            await self._client.ask("POST", "runner/settle", protocol.reader_of_held(0), nothing, attempts=1)
            self._admitted = True
        if not self.has_room:
            raise InternalError("the spool is full, or its disk fails")

    async def start(self, call: Call) -> None:
        """Compare and swap at the API node, with the starts of other calls."""
        with self._client.span("hybrid_client_start", call.app_name, call.path):
            found = await self._starting.put(call)
        if found not in ("", QUEUED):
            raise AlreadyStarted(found)

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store at the API node, or in the spool until it is back."""
        with self._client.span("hybrid_client_end"):
            await self._outbox.finish(ended)

    async def cancelled(self, call_ids: list[str]) -> set[str]:
        """Ask the API node; an older one cannot cancel."""
        body = protocol.encode(protocol.CallIds(call_ids))
        try:
            found = await self._client.ask(
                "POST", "runner/cancelled", lambda data: protocol.decode(data, protocol.CallIds), body, attempts=1
            )
        except ApiError as exc:
            if exc.code not in _NO_SUCH_REQUEST:
                raise
            return set()
        return set(found.calls)

    async def interrupted(self, call: Call) -> None:
        """Complete the record at the API node if its status is still running."""
        body = protocol.encode_ended(EndedCall(call, b""), interrupted=True)
        await self._client.ask("POST", "runner/finish", protocol.read_done, body)

    async def _start_many(self, calls: list[Call]) -> Sequence[str]:
        body = protocol.encode_starts([_encode_start(call) for call in calls])
        found = await self._client.ask(
            "POST", "runner/start", lambda data: protocol.decode(data, protocol.Found).found, body, limit_s=_START_S
        )
        if len(found) != len(calls):
            raise ApiNodeAway
        return found


class RemoteAcceptedCalls(AcceptedCalls):
    """Accepted calls of the API node. Its answers say whether it leaves apps out: an older one does not."""

    def __init__(self, client: ApiClient, outbox: Outbox, clock: Clock) -> None:
        self.leaves_out = False
        self._client = client
        self._outbox = outbox
        self._clock = clock
        self._visibility_s = VISIBILITY_TIMEOUT_S
        self._puts = False

    @property
    def visibility_s(self) -> float:
        """The visibility timeout that the API node sent last."""
        return self._visibility_s

    async def enqueue(self, call: Call) -> None:
        """Enqueue at the API node."""
        with self._client.span("hybrid_client_enqueue", call.app_name, call.path):
            try:
                await self._enqueue(encode_call(call))
            except RemoteRefusal as exc:
                if len(call.payload) <= INSIDE_BYTES or exc.message != InvalidJSON.message:
                    raise
                await self._enqueue(encode_plain(call))  # an older node, which reads JSON only

    async def _enqueue(self, message: bytes) -> None:
        if not self._puts:
            try:
                await self._client.ask("POST", "runner/async", protocol.read_done, message)
            except ApiError as exc:
                if exc.code not in _NO_SUCH_REQUEST:
                    raise
                self._puts = True
                _log.warning("the API node is older: it may run a call twice whose acceptance is repeated")
            else:
                return
        # the request of Fn, whose nodes cannot recognise a repetition: there is none
        await self._client.ask("PUT", "runner/async", protocol.read_done, message, attempts=1)

    async def dequeue(self, limit: int, without: frozenset[str] = frozenset()) -> list[Reserved]:
        """Poll until there are calls. A cancelled poll closes its connection, so that the API node serves others."""
        await self._outbox.wait_for_room()
        while True:
            try:
                if reserved := await self._poll(limit, without):
                    return reserved
            except protocol.WithoutLeases as exc:
                # The calls return to their queue by themselves, for runners of the same kind as that node.
                _log.error("no async calls are taken", error=str(exc), again_in_s=_WITHOUT_LEASES_S)
                await pause(self._clock, _WITHOUT_LEASES_S)

    async def _poll(self, limit: int, without: frozenset[str]) -> list[Reserved]:
        asked_at = self._clock.monotonic()
        left_out = f"&without={quote(msgspec.json.encode(sorted(without)), safe='')}" if without else ""
        with self._client.span("hybrid_client_dequeue"):
            reserved, visibility_s, self.leaves_out = await self._client.ask(
                "GET",
                f"runner/async?limit={limit}&wait_s={_POLL_S}&behind=1{left_out}",
                lambda data: protocol.decode_handed(data, asked_at),
                attempts=1,
                limit_s=_POLL_S + _POLL_SLACK_S,
            )
        self._visibility_s = visibility_s or self._visibility_s
        return reserved

    async def acknowledge(self, leases: list[str]) -> list[bool]:
        """Delete the messages, or keep the acknowledgements while the API node is away."""
        return await self._outbox.acknowledge(leases)

    async def renew(self, leases: list[str]) -> list[bool]:
        """Renew the leases at the API node."""
        body = protocol.encode(protocol.Leases(leases))
        return await self._client.ask("POST", "runner/renew", protocol.reader_of_held(len(leases)), body)

    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Release the message at the API node."""
        body = protocol.encode(protocol.Releases([protocol.Release(lease, delay_s)]))
        await self._client.ask("POST", "runner/release", protocol.read_done, body, attempts=2)

    async def retry(self, lease: str, again: EndedCall, delay_s: float) -> bool:
        """Replace the message and the record at the API node; an older one does neither."""
        body = protocol.encode_retry(lease, again, delay_s)
        try:
            (is_ours,) = await self._client.ask("POST", "runner/retry", protocol.reader_of_held(1), body)
        except ApiError as exc:
            if exc.code not in _NO_SUCH_REQUEST:
                raise
            return False
        return is_ours

    async def call_back(self, call: Call) -> None:
        """Queue the call at the API node; an older one knows no destinations."""
        try:
            await self._client.ask("POST", "runner/callback", protocol.read_done, _encode_request(call))
        except ApiError as exc:
            if exc.code not in _NO_SUCH_REQUEST:
                raise
            _log.warning("the API node is older: it sends no record to a destination", call_id=call.id)


def _encode_request(call: Call) -> bytes:
    """Encode what a destination needs of a call."""
    return encode_plain(msgspec.structs.replace(call, payload=b"", config={}, result=None))


def _encode_start(call: Call) -> bytes:
    """Encode what the record needs of a call."""
    return encode_plain(msgspec.structs.replace(call, payload=b"", config={}, headers={}))


def _segment(name: str) -> str:
    """Encode a name for a path. The two names of folders in a path are names of no app."""
    if name in (".", ".."):
        raise AppsNotFound
    return quote(name, safe="")


def _path(path: str) -> str:
    if path == "/":
        return "%2F"
    return "/".join(quote(part, safe="") for part in path.split("/")[1:])
