"""A version of a function: the image that a deploy gave it."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

#: Versions of one function that are kept.
KEPT: Final = 20


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a function's history.

    Attributes:
        id: Sorts by time.
        app_name: The app.
        function: The path of a route, or the id of a fn.
        image: The reference as the client gave it.
        digest: ``sha256:...`` of the image; empty as long as nobody knows it.
        config_hash: Tells whether two versions had the same configuration.
        principal: Who deployed it.
    """

    id: str
    app_name: str
    function: str
    image: str
    digest: str = ""
    config_hash: str = ""
    principal: str = ""
    created_at: dt.datetime

    def is_same(self, other: Version) -> bool:
        """Return whether another version runs the same code with the same configuration."""
        return (self.image, self.digest, self.config_hash) == (other.image, other.digest, other.config_hash)


def hash_config(config: Mapping[str, str]) -> str:
    """Return a hash of a configuration, which tells nothing of its values."""
    found = hashlib.sha256()
    for part in (text for pair in sorted(config.items()) for text in pair):
        data = part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()[:32]
