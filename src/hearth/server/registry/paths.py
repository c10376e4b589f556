"""Paths of the registry. API v2 has its own beginnings below /v2, and these come first."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

#: First parts of paths that belong to API v2, so no repository begins with one.
RESERVED: Final = frozenset({"apps", "fns", "triggers", "runner", "openapi.json"})
PING: Final = "/v2/"
_KINDS: Final = ("/manifests/", "/blobs/", "/tags/list", "/referrers/")
_PATH: Final = re.compile(
    r"/v2/(?P<name>[^\0]+?)/(?:"
    r"manifests/(?P<manifest>[^/]+)"
    r"|blobs/uploads/(?P<upload>[^/]*)"
    r"|blobs/(?P<blob>[^/]+)"
    r"|(?P<tags>tags/list)"
    r"|referrers/(?P<referrers>[^/]+)"
    r")"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The part of a repository that a path means.

    Attributes:
        kind: ``manifest``, ``upload``, ``blob``, ``tags`` or ``referrers``.
        name: Of the repository.
        item: Tag, digest or upload.
    """

    kind: str
    name: str
    item: str


def is_registry(path: str) -> bool:
    """Return whether a path is served by the registry."""
    if not path.startswith(PING) or path[len(PING) :].partition("/")[0] in RESERVED:
        return False
    return path == PING or any(kind in path for kind in _KINDS)


def parse(path: str) -> Target | None:
    """Return what a path of the registry means; ``None`` if it means nothing."""
    if (match := _PATH.fullmatch(path)) is None:
        return None
    kind = match.lastgroup
    assert kind is not None
    return Target(kind, match["name"], match[kind])


def is_upload(path: str) -> bool:
    """Return whether a path of the registry is that of an upload of a blob. A repository may be called like one."""
    return (target := parse(path)) is not None and target.kind == "upload"
