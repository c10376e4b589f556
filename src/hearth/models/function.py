"""A function as the agent runs it: one image with its limits, independent of the API that defined it.

Each API compiles its own definitions (a route of API v1, for example) to a :class:`FunctionSpec`. Everything below the
API knows functions by their :class:`FunctionRef` only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from hearth.models.secret import NO_SECRETS, SecretValues

SYNC: Final = "sync"
ASYNC: Final = "async"

#: Names of contracts, the ways in which a function and the platform talk. A route calls them formats.
DEFAULT: Final = "default"
HTTP: Final = "http"
JSON: Final = "json"
HTTP_STREAM: Final = "http-stream"

DEFAULT_MEMORY_MIB: Final = 128
#: The most calls that one container may run at once.
MAX_CONCURRENCY: Final = 1000
#: The variable that tells a function that listens how many calls it gets at once.
CONCURRENCY: Final = "FN_CONCURRENCY"


class Amount(msgspec.Struct, frozen=True):
    """Some memory (MiB) and CPU (thousandths of a core)."""

    memory_mib: int
    cpu_milli: int

    def fits(self, room: Amount) -> bool:
        """Return whether there is room for both."""
        return self.memory_mib <= room.memory_mib and self.cpu_milli <= room.cpu_milli

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.memory_mib + other.memory_mib, self.cpu_milli + other.cpu_milli)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.memory_mib - other.memory_mib, self.cpu_milli - other.cpu_milli)


NOTHING: Final = Amount(0, 0)


class FunctionRef(msgspec.Struct, frozen=True, cache_hash=True, kw_only=True):
    """The identity of a function, and the names that people know it by.

    Attributes:
        id: Identifies the function for as long as it exists. A function that is deleted and created again gets another.
        app_id: Identifies its app in the same way. Empty if the app was defined by a server that assigns no ids.
        app_name: The app's name in logs, spans and metrics.
        name: The function's name there: the path of a route, or the name of a fn.
    """

    id: str
    app_id: str
    app_name: str
    name: str

    @property
    def app(self) -> str:
        """Return what identifies the app on a node: its id, or its name, marked as such, if it has no id."""
        return self.app_id or f"name:{self.app_name}"

    @property
    def is_fn(self) -> bool:
        """Return whether it is a fn of API v2. Their names have no slash, and those of routes begin with one."""
        return not self.name.startswith("/")

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of the function's metrics and spans."""
        return self.app_name, self.name

    def __str__(self) -> str:
        return f"{self.app_name}{self.name}"


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One version of a function, with all that shapes its containers.

    Attributes:
        contract: The name of the way in which the function and the platform talk.
        amount: Memory and CPU of one container; a ``cpu_milli`` of 0 means unlimited.
        timeout_s: The time of a call. That of a fn begins when a container has it, that of a route when it arrives.
        idle_timeout_s: Time without a call after which a container ends.
        is_sync: Clients wait for the answers of calls; otherwise calls are accepted and run later.
        environment: The environment variables of every container. Never changed.
        container_labels: Labels of every container, for people and for cleaning up.
        secrets: The secrets of every container: variables that win over ``environment``, or files.
        secrets_as_files: The containers get them as files.
        concurrency: Calls that one container runs at once.
        syslog_url: The syslog server that gets what its containers write, besides their logs; empty: none.
        hot_key: A digest of all the above, of secrets their versions: containers are shared by specs with equal keys
            only.
        min_instances: Containers that a node keeps ready. Shapes no container, and so is no part of the key.
        max_instances: Containers of the function, of all its versions, that a node may have; 0 for any number.
    """

    ref: FunctionRef
    image: str
    contract: str
    amount: Amount
    timeout_s: int
    idle_timeout_s: int
    is_sync: bool
    environment: dict[str, str]
    container_labels: Mapping[str, str]
    secrets: SecretValues = NO_SECRETS
    secrets_as_files: bool = False
    concurrency: int = 1
    syslog_url: str = ""
    hot_key: bytes = b""
    min_instances: int = 0
    max_instances: int = 0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "hot_key", _digest(_key_fields(self)))


def _key_fields(spec: FunctionSpec) -> Iterable[str]:
    ref, amount = spec.ref, spec.amount
    yield from (ref.id, ref.app_id, ref.app_name, ref.name, spec.image, spec.contract)
    yield from map(str, (spec.timeout_s, spec.idle_timeout_s, amount.memory_mib, amount.cpu_milli, spec.is_sync))
    yield from map(str, (spec.secrets_as_files, spec.concurrency, spec.syslog_url))
    for fields in (spec.environment, spec.container_labels, spec.secrets.versions):
        yield str(len(fields))
        for name in sorted(fields):
            yield name
            yield fields[name]


def _digest(fields: Iterable[str]) -> bytes:
    """Return a digest of these texts. Each is preceded by its length, so that no two lists share one."""
    digest = hashlib.blake2b(digest_size=16)
    for text in fields:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
