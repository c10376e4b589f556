"""Upload images to the registry of a server: only the blobs that it lacks, in pieces that go on after a break."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote, urlsplit

import httpx

from hearth.cli.client import Client, ServerError, error_message
from hearth.cli.output import CommandError
from hearth.images.documents import MANIFEST_TYPE, Descriptor
from hearth.images.layout import ImageStore
from hearth.images.repositories import is_repository

_PIECE: Final = 4 << 20
#: Attempts to go on with a blob after the connection broke.
_ATTEMPTS: Final = 5
_RANGE: Final = re.compile(r"0-(\d{1,18})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Uploaded:
    """The result of an upload: bytes that were sent, of all the bytes of the image."""

    sent: int
    total: int


def upload(client: Client, store: ImageStore, digest: str, repository: str, tag: str) -> Uploaded:
    """Upload an image of a store to a repository of a server.

    Raises:
        CommandError: The server refuses it, or does not answer.
        ImageStoreError: The image is not in the store.
    """
    if not is_repository(repository):
        raise CommandError(
            f"{repository}: cannot be the name of a repository: an app's name has letters, digits, dots, dashes and "
            "underscores, and a function's name small letters only"
        )
    document = store.blobs.read_document(digest)
    image = store.image(digest)
    total = sum(blob.size for blob in image.manifest.blobs)
    with _progress(repository, total) as show:
        sent = sum(_Blob(client, store, repository, blob, show).push() for blob in image.manifest.blobs)
    answer = client.registry(
        "PUT",
        f"/v2/{quote(repository)}/manifests/{quote(tag)}",
        content=document,
        headers={"Content-Type": MANIFEST_TYPE},
    )
    _check(client, answer, 201)
    return Uploaded(sent, total)


class _Blob:
    """One blob on its way."""

    def __init__(
        self, client: Client, store: ImageStore, repository: str, blob: Descriptor, show: Callable[[int], None]
    ) -> None:
        self._client = client
        self._store = store
        self._repository = repository
        self._blob = blob
        self._show = show
        self._sent = 0

    def push(self) -> int:
        """Upload it unless the server has it already; return the bytes that were sent."""
        started = self._client.registry(
            "POST", f"/v2/{quote(self._repository)}/blobs/uploads/", params={"mount": self._blob.digest}
        )
        if started.status_code == httpx.codes.CREATED:
            self._show(self._blob.size)
            return 0
        place = self._place(_check(self._client, started, 202))
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._send(place)
                return self._sent
            except ServerError:
                raise
            except CommandError:  # the connection broke
                if attempt == _ATTEMPTS:
                    raise
                place = self._place(_check(self._client, self._client.registry("GET", place[0]), 204))
        return self._sent

    def _place(self, answer: httpx.Response) -> tuple[str, int]:
        """Return the path of the upload, and how many bytes the server has."""
        parts = urlsplit(answer.headers.get("location", ""))
        match = _RANGE.fullmatch(answer.headers.get("range", ""))
        if not parts.path.startswith("/v2/"):
            raise CommandError(f"{self._client.url}: answered an upload without its place")
        there = 0 if match is None or match[1] == "0" else int(match[1]) + 1
        return parts.path + (f"?{parts.query}" if parts.query else ""), there

    def _send(self, place: tuple[str, int]) -> None:
        path, offset = place
        with self._store.blobs.open(self._blob.digest) as file:
            file.seek(offset)
            while data := file.read(_PIECE):
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{offset}-{offset + len(data) - 1}",
                }
                answer = self._client.registry("PATCH", path, content=data, headers=headers)
                path, offset = self._place(_check(self._client, answer, 202))
                self._sent += len(data)
                self._show(len(data))
        joint = "&" if "?" in path else "?"
        _check(self._client, self._client.registry("PUT", f"{path}{joint}digest={self._blob.digest}"), 201)


def _check(client: Client, answer: httpx.Response, expected: int) -> httpx.Response:
    """Return an answer of the registry.

    Raises:
        ServerError: It is an error.
    """
    if answer.status_code == expected:
        return answer
    if answer.status_code in (404, 405) and "errors" not in answer.text:
        raise CommandError(f"{client.url}: takes no images; this needs a server of Hearth 0.2 or later")
    if answer.status_code < 400:
        raise CommandError(f"{client.url}: answered {answer.status_code} to an upload; is this a Hearth server?")
    raise ServerError(answer.status_code, error_message(answer.content) or f"status {answer.status_code}")


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, once there is something to wait for."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(f"Uploading {name}", total=total)
        yield lambda size: bar.advance(task, size)
