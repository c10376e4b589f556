"""A fn: the function of today's Fn, one image with its limits. It is called by its id, or through a trigger."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import msgspec

from hearth.models.annotations import AUTH_KEY, CONCURRENCY_KEY, Annotations, merge_annotations, validate_annotations
from hearth.models.call_auth import DEFAULT_CALL_AUTHS
from hearth.models.config import validate_config
from hearth.models.delivery import of_annotations
from hearth.models.errors import DEFAULT_MAX_MEMORY_MIB
from hearth.models.fn_errors import (
    FnInvalidAuth,
    FnInvalidConcurrency,
    FnInvalidIdleTimeout,
    FnInvalidMemory,
    FnInvalidName,
    FnInvalidTimeout,
    FnMissingAppId,
    FnMissingImage,
    FnMissingName,
    FnTooLongName,
)
from hearth.models.function import DEFAULT_MEMORY_MIB, HTTP_STREAM, MAX_CONCURRENCY
from hearth.models.instances import Instances, check_instances
from hearth.models.instances import of_annotations as instances_of
from hearth.models.patch import merge_config
from hearth.models.times import ZERO

DEFAULT_TIMEOUT_S: Final = 30
DEFAULT_IDLE_TIMEOUT_S: Final = 30
MAX_TIMEOUT_S: Final = 300
MAX_IDLE_TIMEOUT_S: Final = 3600
MAX_NAME_BYTES: Final = 255

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
#: Values of the annotation, as the JSON of a client.
_AUTHS: Final = {f'"{auth}"': auth for auth in DEFAULT_CALL_AUTHS}
#: Characters that need no escape in a segment of a URL's path.
_NAME: Final = re.compile(r"[A-Za-z0-9\-_.~$&+=:@]+", re.ASCII)


class Fn(msgspec.Struct, frozen=True, kw_only=True):
    """A function of an app. Frozen: a cached fn is shared by every call that uses it.

    ``memory`` is MiB, ``timeout`` and ``idle_timeout`` are seconds. ``shape`` is that of the app when the fn was
    created: a hint for those who build its image. ``digest`` is what ``image`` stands for; empty as long as nobody
    knows it.
    """

    id: str
    name: str
    app_id: str
    image: str = ""
    memory: int = DEFAULT_MEMORY_MIB
    timeout: int = DEFAULT_TIMEOUT_S
    idle_timeout: int = DEFAULT_IDLE_TIMEOUT_S
    config: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: Annotations = msgspec.field(default_factory=dict)
    shape: str = ""
    digest: str = ""
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO

    @property
    def concurrency(self) -> int:
        """Return how many calls one container runs at once, as its annotation says.

        Raises:
            FnInvalidConcurrency: The annotation says something else.
        """
        text = self.annotations.get(CONCURRENCY_KEY, "1")
        if _NUMBER.fullmatch(text) is None or int(text) > MAX_CONCURRENCY:
            raise FnInvalidConcurrency
        return int(text)

    @property
    def auth(self) -> str:
        """Return the proof that it asks of its callers, as its annotation says; empty: as its app says.

        Raises:
            FnInvalidAuth: The annotation says something else.
        """
        text = self.annotations.get(AUTH_KEY)
        if text is None:
            return ""
        if text not in _AUTHS:
            raise FnInvalidAuth
        return _AUTHS[text]

    @property
    def instances(self) -> Instances:
        """Return the bounds of its containers on each node, as its annotations say.

        Raises:
            InvalidInstances: An annotation says something else.
        """
        return instances_of(self.annotations)


class FnPatch(msgspec.Struct, kw_only=True):
    """A new fn, or changes to one. Zero values mean the default, or "leave unchanged".

    ``digest`` is what ``image`` stands for, and changes with it: no client sends it.
    """

    id: str = ""
    name: str = ""
    app_id: str = ""
    image: str = ""
    memory: int = 0
    timeout: int = 0
    idle_timeout: int = 0
    config: dict[str, str] | None = None
    annotations: Annotations | None = None
    digest: str = ""


def new_fn(fn_id: str, patch: FnPatch, now: dt.datetime) -> Fn:
    """Return the fn that a client describes: its values over the defaults, not yet validated."""
    return Fn(
        id=fn_id,
        name=patch.name,
        app_id=patch.app_id,
        image=patch.image,
        memory=patch.memory or DEFAULT_MEMORY_MIB,
        timeout=patch.timeout or DEFAULT_TIMEOUT_S,
        idle_timeout=patch.idle_timeout or DEFAULT_IDLE_TIMEOUT_S,
        config=dict(patch.config or {}),
        annotations=dict(patch.annotations or {}),
        created_at=now,
        updated_at=now,
    )


def apply_fn_patch(fn: Fn, patch: FnPatch, now: dt.datetime) -> Fn:
    """Return the fn after the patch, not yet validated; ``updated_at`` moves only if something changed."""
    merged = msgspec.structs.replace(
        fn,
        image=patch.image or fn.image,
        digest=patch.digest if patch.image else fn.digest,
        memory=patch.memory or fn.memory,
        timeout=patch.timeout or fn.timeout,
        idle_timeout=patch.idle_timeout or fn.idle_timeout,
        config=merge_config(fn.config, patch.config),
        annotations=merge_annotations(fn.annotations, patch.annotations),
    )
    return fn if merged == fn else msgspec.structs.replace(merged, updated_at=now)


def validate_fn(fn: Fn, max_memory_mib: int = DEFAULT_MAX_MEMORY_MIB) -> None:
    """Check a whole fn; the first failure wins (API specification of version 2, 5).

    Raises:
        ApiError: The matching row of the catalogue.
    """
    if not fn.name:
        raise FnMissingName
    if len(fn.name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise FnTooLongName
    if _NAME.fullmatch(fn.name) is None:
        raise FnInvalidName
    if not fn.app_id:
        raise FnMissingAppId
    if not fn.image:
        raise FnMissingImage
    if not 1 <= fn.timeout <= MAX_TIMEOUT_S:
        raise FnInvalidTimeout
    if not 1 <= fn.idle_timeout <= MAX_IDLE_TIMEOUT_S:
        raise FnInvalidIdleTimeout
    if not 1 <= fn.memory <= max_memory_mib:
        raise FnInvalidMemory
    validate_annotations(fn.annotations, of_fn=True)
    fn.auth, fn.concurrency  # noqa: B018  # they are checked where they are read
    check_instances(fn.instances, HTTP_STREAM)
    of_annotations(fn.annotations)
    validate_config(fn.config)
