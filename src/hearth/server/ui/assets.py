"""The files of the dashboard, read once: they are part of the package."""

from __future__ import annotations

import functools
import hashlib
import html
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

_FOLDER: Final = "static"
_PAGE: Final = "index.html"
_KEY: Final = "{page_key}"
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


class Asset(NamedTuple):
    """A file, its media type, and a tag that changes with its content."""

    data: bytes
    media_type: str
    tag: str


@functools.cache
def assets() -> dict[str, Asset]:
    """Return the files by their path below ``/ui/static/``."""
    root = importlib.resources.files(__package__) / _FOLDER
    return dict(sorted(_below(root, "")))


def page(page_key: str) -> str:
    """Return the page, which contains the key that its requests show."""
    return assets()[_PAGE].data.decode().replace(_KEY, html.escape(page_key, quote=True))


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _below(entry, f"{name}/")
        elif (media_type := _TYPES.get(entry.name.rpartition(".")[2])) is not None:
            data = entry.read_bytes()
            yield name, Asset(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
