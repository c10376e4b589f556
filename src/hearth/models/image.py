"""References to images, and the digests that they stand for.

A tag may mean another image tomorrow. So a function stores two things: the reference as its client gave it, and the
digest that the reference meant then. What runs is the digest.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

#: Returns the digest that a reference means now; empty if that is unknown.
Resolve = Callable[[str], Awaitable[str]]

_PINNED: Final = re.compile(r".+@sha256:[0-9a-f]{64}", re.ASCII)


class Pin(NamedTuple):
    """The digest of a function's image.

    Attributes:
        app_name: The app; ignored for a fn.
        function: The path of a route, or the id of a fn.
        image: The reference of the function.
        digest: What it stands for, ``sha256:...``; empty if nobody knows it yet.
    """

    app_name: str
    function: str
    image: str
    digest: str = ""

    @property
    def is_of_route(self) -> bool:
        """Return whether the function is a route."""
        return self.function.startswith("/")


def is_pinned(image: str) -> bool:
    """Return whether a reference has a digest. Any tag may be another function's, also one of a registry."""
    return _PINNED.fullmatch(image) is not None


def digest_of(image: str) -> str:
    """Return the digest in a reference; empty if it has none."""
    return image.rpartition("@")[2] if is_pinned(image) else ""


async def unresolved(image: str) -> str:
    """Return nothing: the :data:`Resolve` of a node without images."""
    return ""


def pinned(image: str, digest: str) -> str:
    """Return the reference to what an image stands for.

    Args:
        image: The reference as it was given.
        digest: ``sha256:...``; empty as long as nobody knows it: then the tag is followed.
    """
    return f"{image}@{digest}" if digest and not is_pinned(image) else image
