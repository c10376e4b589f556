"""Image references: ``[host[:port]/]path/name[:tag][@digest]`` (drivers specification 2.6)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Final

from hearth.models.registry_login import HUB, is_host, registry_of

_PART: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


class InvalidReference(ValueError):
    """The text names no image."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """Which image of which registry.

    Attributes:
        registry: ``host[:port]``; :data:`HUB` where the text names none.
        path: The repository at that registry.
        tag: ``latest`` where the text has neither tag nor digest; ``None`` where a digest says more.
        digest: The content, if the text pins it.
    """

    registry: str
    path: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag is not None else self.name

    @property
    def name(self) -> str:
        """Everything but the tag: what the Engine takes as the name in a pull."""
        return f"{self.registry}/{self.path}" + (f"@{self.digest}" if self.digest is not None else "")


def parse(text: str) -> Reference:
    """Parse the image reference of a route.

    Raises:
        InvalidReference: The text is not a valid reference.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReference(f"{text!r}: invalid digest")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(f"{text!r}: invalid tag")
    registry, path = _split_registry(f"{head}{slash}{last}")
    if not all(_PART.fullmatch(part) for part in path.split("/")):
        raise InvalidReference(f"{text!r}: invalid reference format")
    if at:
        return Reference(registry, path, None, digest)
    return Reference(registry, path, tag or "latest", None)


def has_registry(text: str) -> bool:
    """Return whether a reference names its registry: by a dot or a port, or as localhost."""
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def refusal(reference: Reference, allowed: Collection[str]) -> str:
    """Return why a registry is not asked for an image; empty if it is.

    Args:
        reference: Names the registry.
        allowed: The registries that a node asks; empty: all.
    """
    if not allowed or reference.registry in allowed:
        return ""
    return f"{reference.registry} is not one of the registries that this node uses (FN_IMAGE_REGISTRIES)"


def digest_at(reference: Reference, names: Iterable[str]) -> str:
    """Return the digest of an image in the repository of a reference; empty if it has none there.

    Args:
        reference: Names the repository.
        names: The names of the image that have a digest.
    """
    for name in names:
        with contextlib.suppress(InvalidReference):
            one = parse(name)
            if (one.registry, one.path) == (reference.registry, reference.path):
                return one.digest or ""
    return ""


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, path = name.partition("/")
    if not slash:
        return HUB, f"library/{name}"
    if not has_registry(name):
        return HUB, name
    if not is_host(first):
        raise InvalidReference(f"{name!r}: invalid registry")
    registry = registry_of(first)
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    return registry, path
