"""The stored world as the rest of Hearth uses it: four interfaces; local and remote behave alike.

Errors are those of ``models.errors``: an :class:`~hearth.models.errors.ApiError` where a client may see it, else an
:class:`~hearth.models.errors.InternalError`. No backend's exception passes.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from hearth.drivers.base import FetchImage
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import AppsNotFound, HearthError, IdempotencyUnavailable, SecretGone, StoreRefused
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.idempotency import Claim, KeyEnd, StoredKey
from hearth.models.image import Pin
from hearth.models.instances import NONE_KEPT_READY, KeptReady
from hearth.models.node import NodeReport
from hearth.models.registry_login import RegistryLogin
from hearth.models.route import Route
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.models.token import Token
from hearth.models.trigger import Trigger
from hearth.queues.base import Reserved


class EndedCall(NamedTuple):
    """A call that reached a final status, with its log (at most the configured limit; already cut and marked)."""

    call: Call
    log: bytes


#: Begins to do as :meth:`CallRecords.finish_many`, and calls back on this loop with its error or ``None``, never before
#: it returns. Returns false if it cannot store these calls; then nothing is stored, nor called back.
Submit = Callable[[list[EndedCall], Callable[[Exception | None], object]], bool]


class EndRefused(StoreRefused):
    """An API node never stores the end of this call. The outbox counts it."""


class AlreadyStarted(HearthError):
    """The call was started before; ``status`` is its status."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the call was started before: {status}")
        self.status = status


class Definitions(Protocol):
    """Apps and routes. A :class:`~hearth.stores.datastore.Datastore` is one."""

    async def get_app(self, name: str) -> App:
        """Return the app.

        Raises:
            AppsNotFound: The app does not exist.
        """

    async def get_route(self, app_name: str, path: str) -> Route:
        """Return the route; ``path`` is matched exactly.

        Raises:
            RoutesNotFound: The route does not exist.
        """


class FnDefinitions(Protocol):
    """Fns and triggers, with their apps. A :class:`~hearth.stores.datastore.Datastore` is one."""

    async def get_app(self, name: str) -> App:
        """Return the app. Raises ``AppsNotFound``."""

    async def get_app_by_id(self, app_id: str) -> App:
        """Return the app. Raises ``AppsNotFound``."""

    async def get_fn(self, fn_id: str) -> Fn:
        """Return the fn. Raises ``FnNotFound``."""

    async def get_fn_named(self, app_id: str, name: str) -> Fn:
        """Return the fn of an app with this name. Raises ``FnNotFound``."""

    async def get_trigger_by_source(self, app_id: str, kind: str, source: str) -> Trigger:
        """Return the trigger of an app at a source. Raises ``TriggerNotFound``."""


class NoFns:
    """The fns of a node without any."""

    async def get_app(self, name: str) -> App:
        """Raise ``AppsNotFound``."""
        raise AppsNotFound

    async def get_app_by_id(self, app_id: str) -> App:
        """Raise ``AppsNotFound``."""
        raise AppsNotFound

    async def get_fn(self, fn_id: str) -> Fn:
        """Raise ``FnNotFound``."""
        raise FnNotFound

    async def get_fn_named(self, app_id: str, name: str) -> Fn:
        """Raise ``FnNotFound``."""
        raise FnNotFound

    async def get_trigger_by_source(self, app_id: str, kind: str, source: str) -> Trigger:
        """Raise ``TriggerNotFound``."""
        raise TriggerNotFound


NO_FNS: Final = NoFns()


class SecretSource(Protocol):
    """The secrets of functions. A :class:`~hearth.stores.secrets.vault.Vault` is one."""

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        """Return some secrets of an app.

        Raises:
            SecretGone: One of them does not exist.
            SecretUnreadable: One of them cannot be decrypted.
        """


class NoSecretSource:
    """Source of a node without secrets."""

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        """Return nothing, or raise ``SecretGone`` for the first of the names."""
        for name in names:
            raise SecretGone(app_name, name)
        return NO_SECRETS


NO_SECRET_SOURCE: Final = NoSecretSource()


class TokenSource(Protocol):
    """Stored tokens. A :class:`~hearth.stores.datastore.Datastore` is one."""

    async def find_token(self, digest: str) -> Token | None:
        """Return the token of a digest, whether it has expired or not.

        Raises:
            StoreUnavailable: It cannot be looked up now.
        """


class NoTokenSource:
    """Source of a node without stored tokens."""

    async def find_token(self, digest: str) -> Token | None:
        """Return nothing."""
        return None


NO_TOKEN_SOURCE: Final = NoTokenSource()


class LoginSource(Protocol):
    """The logins of apps at registries."""

    async def find(self, app_name: str, app_id: str, registry: str) -> RegistryLogin | None:
        """Return the login that an app has stored for a registry, ``host[:port]``; ``None`` if it has none.

        Raises:
            HearthError: It cannot be looked up or decrypted now.
        """


class NoLoginSource:
    """Source of a node without stored logins."""

    async def find(self, app_name: str, app_id: str, registry: str) -> RegistryLogin | None:
        """Return nothing."""
        return None


NO_LOGIN_SOURCE: Final = NoLoginSource()


class PinTarget(Protocol):
    """Stores the digests of images. A :class:`~hearth.stores.datastore.Datastore` is one."""

    async def pin(self, pin: Pin) -> bool:
        """Store the digest of a function's image, unless the function has another image or a digest by now."""


class NoPinTarget:
    """Stores no digest."""

    async def pin(self, pin: Pin) -> bool:
        """Return false."""
        return False


NO_PIN_TARGET: Final = NoPinTarget()


class ReadySource(Protocol):
    """The functions that keep containers ready. A :class:`~hearth.stores.datastore.Datastore` is one."""

    async def kept_ready(self) -> KeptReady:
        """Return them.

        Raises:
            HearthError: They cannot be looked up now.
        """


class NoReadySource:
    """Source of a node that keeps no container ready."""

    async def kept_ready(self) -> KeptReady:
        """Return nothing."""
        return NONE_KEPT_READY


NO_READY_SOURCE: Final = NoReadySource()


class IdempotencyKeys(Protocol):
    """Idempotency keys, see :class:`~hearth.stores.keys.base.KeyStore`."""

    async def claim(self, claim: Claim) -> StoredKey:
        """Hold a key that nobody has, or return it as it is stored.

        Raises:
            IdempotencyUnavailable: Keys cannot be held here.
            HearthError: Nobody can tell whether the key is held.
        """

    async def renew(self, held: Sequence[tuple[str, str]]) -> None:
        """Hold keys for longer, each given with the call of its claim."""

    async def end(self, end: KeyEnd) -> bool:
        """Store the end of the request that holds a key; false if it does not hold it any more."""


class NoIdempotencyKeys:
    """Keys of a node that cannot hold any."""

    async def claim(self, claim: Claim) -> StoredKey:
        """Raise ``IdempotencyUnavailable``."""
        raise IdempotencyUnavailable

    async def renew(self, held: Sequence[tuple[str, str]]) -> None:
        """Do nothing: no key is held."""

    async def end(self, end: KeyEnd) -> bool:
        """Return false."""
        return False


NO_IDEMPOTENCY_KEYS: Final = NoIdempotencyKeys()


class CallRecords(abc.ABC):
    """Records and logs of calls."""

    @property
    def has_room(self) -> bool:
        """True if this node can keep the ends of further calls."""
        return True

    async def check(self) -> None:
        """Check that calls can be sent to this node.

        Raises:
            HearthError: They cannot; the text says why.
        """
        return

    @property
    def submit(self) -> Submit | None:
        """Return how ended calls can be stored without a task; ``None``: only with :meth:`finish_many`."""
        return None

    @abc.abstractmethod
    async def start(self, call: Call) -> None:
        """Store an async call as running, unless it was started before: compare and swap.

        Raises:
            AlreadyStarted: The call was started before, here or by another node.
        """

    @abc.abstractmethod
    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs of ended calls in one transaction.

        Storing a call again changes nothing. The end of an accepted call that another node has recorded stays.
        """

    async def cancelled(self, call_ids: list[str]) -> set[str]:
        """Return those of some calls that a client has cancelled; none if this node cannot know."""
        return set()

    @abc.abstractmethod
    async def interrupted(self, call: Call) -> None:
        """Store the end of a call that is recorded as running and that no node runs; ``call`` has the final fields."""


class AcceptedCalls(abc.ABC):
    """Async calls between their acceptance and their end. The node that dequeues one holds a lease on it.

    Attributes:
        leaves_out: Calls of some apps can be left in the queue.
    """

    leaves_out: bool = False

    @property
    @abc.abstractmethod
    def visibility_s(self) -> float:
        """Seconds that a lease lasts, from the dequeue or the last renewal."""

    @abc.abstractmethod
    async def enqueue(self, call: Call) -> None:
        """Accept an async call: durable when this returns, with a record that says ``queued``.

        Raises:
            QuotaExceeded: Too many calls of the app have not started, or the app stores too many bytes.
            InternalError: The call was not accepted and does not exist.
        """

    @abc.abstractmethod
    async def dequeue(self, limit: int, without: frozenset[str] = frozenset()) -> list[Reserved]:
        """Wait until there are accepted calls, and take up to ``limit``; of all apps except some, if those can be.

        A cancelled wait loses none: what was already taken comes back, at the latest when its lease ends.
        """

    @abc.abstractmethod
    async def acknowledge(self, leases: list[str]) -> list[bool]:
        """Delete the messages of ended calls; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def renew(self, leases: list[str]) -> list[bool]:
        """Extend leases by the visibility timeout; false where the lease is no longer the current one."""

    @abc.abstractmethod
    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Return a call that was not started; nobody can take it for ``delay_s``."""

    async def retry(self, lease: str, again: EndedCall, delay_s: float) -> bool:
        """Put the next attempt of a call in the place of the one that has ended: durable when this returns true.

        Args:
            lease: That of the attempt that has ended.
            again: The call as its next attempt finds it, with the log of the last one.
            delay_s: Seconds for which nobody can take it.

        Returns:
            False if the lease is not the current one, so that another node has the call, or if there are no retries
            here.

        Raises:
            HearthError: Nothing has changed, or nobody can tell; it can be tried again.
        """
        return False

    async def call_back(self, call: Call) -> None:
        """Queue the call that sends the record of a call to its destination, unless that was done before.

        Args:
            call: As it was accepted; nothing happens unless its final record is stored.

        Raises:
            HearthError: Nobody can tell whether it is queued; it can be tried again.
        """
        return


#: Reports a node to the one above it; returns whether it is to drain.
SendReport = Callable[[NodeReport], Awaitable[bool]]


@dataclasses.dataclass(frozen=True, slots=True)
class StoredWorld:
    """The interfaces of one node.

    Attributes:
        pins: Stores the digests of images that are known later than their functions.
        fetch_image: Gets the image of a reference from another node; ``None`` where all images are here.
        keys: The idempotency keys of requests.
        ready: The functions that keep containers ready.
        report: Reports this node to the one above it, and returns whether it is to drain; ``None`` without one above.
    """

    definitions: Definitions
    records: CallRecords
    accepted: AcceptedCalls
    secrets: SecretSource = NO_SECRET_SOURCE
    tokens: TokenSource = NO_TOKEN_SOURCE
    fns: FnDefinitions = NO_FNS
    pins: PinTarget = NO_PIN_TARGET
    fetch_image: FetchImage | None = None
    keys: IdempotencyKeys = NO_IDEMPOTENCY_KEYS
    ready: ReadySource = NO_READY_SOURCE
    report: SendReport | None = None
