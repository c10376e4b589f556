"""The handlers of the registry. Blobs pass in pieces: neither an upload nor a download is held in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hearth.authorize.rules import Action, is_allowed
from hearth.images.blobs import Upload
from hearth.images.documents import MAX_DOCUMENT_BYTES, is_digest
from hearth.images.errors import (
    BlobNotFound,
    ImageStoreError,
    ImageTooLarge,
    InvalidImage,
    StoreFailed,
    WrongDigest,
)
from hearth.images.layout import ImageStore
from hearth.images.repositories import Repository, is_repository, is_tag, repositories
from hearth.server.door import principal_of
from hearth.server.registry.downloads import blob_answer, headers_of
from hearth.server.registry.errors import RegistryError
from hearth.server.registry.paths import PING, Target, parse
from hearth.telemetry.logs import get_logger

_VERSION: Final = {"Docker-Distribution-API-Version": "registry/2.0"}
#: Bytes that are handed to a thread at once.
_PIECE: Final = 1 << 20
_PLACE: Final = re.compile(r"(?:bytes=)?(\d{1,18})-(\d{1,18})", re.ASCII)
#: Uploads that are kept open between two requests; others are read again when they go on.
_OPEN_UPLOADS: Final = 64
_DEFAULT_TAGS: Final = 1000

Handler = Callable[[Request, Repository, str], Awaitable[Response]]

_log = get_logger(__name__)


class Registry:
    """Serves the images of a store.

    Args:
        store: The store.
        most_bytes: The longest blob.
    """

    def __init__(self, store: ImageStore, most_bytes: int | None = None) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._open: dict[str, Upload] = {}
        self._busy: set[str] = set()
        self._is_made = False
        self._handlers: dict[str, dict[str, Handler]] = {
            "manifest": {
                "GET": self._get_manifest,
                "HEAD": self._get_manifest,
                "PUT": self._put_manifest,
                "DELETE": self._delete_manifest,
            },
            "blob": {"GET": self._get_blob, "HEAD": self._get_blob, "DELETE": self._delete_blob},
            "upload": {
                "POST": self._begin,
                "GET": self._progress,
                "PATCH": self._append,
                "PUT": self._finish,
                "DELETE": self._cancel,
            },
            "tags": {"GET": self._tags},
        }

    async def answer(self, request: Request) -> Response:
        """Answer one request below /v2.

        Raises:
            RegistryError: It fails.
        """
        path: str = request.scope["path"]
        if path == PING and request.method in ("GET", "HEAD"):
            return _json({})
        target = parse(path)
        if target is None:
            raise RegistryError(404, "NAME_UNKNOWN", f"{path}: not a path of the registry")
        if not is_repository(target.name):
            raise RegistryError(400, "NAME_INVALID", f"{target.name}: invalid name of a repository")
        if "/" not in target.name:  # such a name may be that of a build, which routes of any app follow
            raise RegistryError(400, "NAME_INVALID", f"{target.name}: a repository is APP/NAME")
        handler = self._handler(request.method, target)
        if not self._is_made:
            await asyncio.to_thread(self._store.make)
            self._is_made = True
        try:
            response = await handler(request, Repository(self._store, target.name), target.item)
        except ImageStoreError as exc:
            raise _as_answer(exc, target) from exc
        response.headers.update(_VERSION)
        return response

    def entry_points(self) -> Iterator[tuple[str, str]]:
        """Yield the method and the path of all that is served."""
        paths = {"manifest": "manifests/:", "blob": "blobs/:", "tags": "tags/list", "upload": "blobs/uploads/:"}
        yield "GET", PING
        for kind, methods in self._handlers.items():
            for method in methods:
                path = "blobs/uploads/" if method == "POST" else paths[kind]
                yield method, f"/v2/:app/{path}"

    async def close(self) -> None:
        """Let go of unfinished uploads; they may be continued later."""
        for upload in self._open.values():
            await asyncio.to_thread(upload.suspend)
        self._open.clear()

    def _handler(self, method: str, target: Target) -> Handler:
        handler = self._handlers.get(target.kind, {}).get(method)
        if target.kind == "upload" and (method == "POST") == bool(target.item):
            handler = None  # one begins an upload without a name, and continues one with a name
        if handler is None:
            status = 404 if target.kind == "referrers" else 405
            raise RegistryError(status, "UNSUPPORTED", f"{method} is not supported for {target.kind}")
        return handler

    # -- manifests and tags ---------------------------------------------------------------------------------------

    async def _get_manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        digest, media_type, data = await asyncio.to_thread(repository.manifest, reference)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return _whole(request, data, headers)

    async def _put_manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        if not is_digest(reference) and not is_tag(reference):
            raise RegistryError(400, "MANIFEST_INVALID", f"{reference}: neither a tag nor a sha256 digest")
        data = await _whole_body(request, MAX_DOCUMENT_BYTES)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        digest = await asyncio.to_thread(repository.put_manifest, data, reference, media_type)
        _log.info("image pushed", repository=repository.name, reference=reference, digest=digest)
        return Response(status_code=201, headers=_placed(repository, "manifests", digest))

    async def _delete_manifest(self, request: Request, repository: Repository, reference: str) -> Response:
        if not await asyncio.to_thread(repository.remove_manifest, reference):
            raise BlobNotFound(reference)
        return Response(status_code=202)

    async def _tags(self, request: Request, repository: Repository, item: str) -> Response:
        if not await asyncio.to_thread(lambda: repository.exists):
            raise RegistryError(404, "NAME_UNKNOWN", f"{repository.name}: no such repository")
        asked = request.query_params.get("n", "")
        if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 10):
            raise RegistryError(400, "UNSUPPORTED", f"n={asked}: not a number of tags")
        count = int(asked) if asked else _DEFAULT_TAGS
        last = request.query_params.get("last", "")
        tags = [tag for tag in await asyncio.to_thread(repository.tags) if tag > last]
        shown = tags[:count]
        answer = _json({"name": repository.name, "tags": shown})
        if shown and len(shown) < len(tags):
            following = f"/v2/{quote(repository.name)}/tags/list?n={count}&last={quote(shown[-1])}"
            answer.headers["Link"] = f'<{following}>; rel="next"'
        return answer

    # -- blobs ----------------------------------------------------------------------------------------------------

    async def _get_blob(self, request: Request, repository: Repository, digest: str) -> Response:
        size = await asyncio.to_thread(repository.size_of, digest)
        if size is None:
            raise BlobNotFound(digest)
        if request.method == "HEAD":
            return Response(headers={**headers_of(digest), "Content-Length": str(size)})
        return await blob_answer(self._store, digest, size, request.headers.get("range", ""))

    async def _delete_blob(self, request: Request, repository: Repository, digest: str) -> Response:
        if not await asyncio.to_thread(repository.remove_blob, digest):
            raise BlobNotFound(digest)
        return Response(status_code=202)

    async def _begin(self, request: Request, repository: Repository, item: str) -> Response:
        mount, source = request.query_params.get("mount", ""), request.query_params.get("from", "")
        if mount and await self._mount(request, repository, mount, source):
            return Response(status_code=201, headers=_placed(repository, "blobs", mount))
        digest = request.query_params.get("digest", "")
        if digest and not is_digest(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"{digest}: not a sha256 digest")
        upload = await asyncio.to_thread(repository.begin, self._most_bytes)
        if not digest:
            await self._keep(upload)
            return Response(status_code=202, headers=_location(repository, upload))
        try:
            return await self._complete(request, repository, upload, digest)
        except BaseException:
            await asyncio.to_thread(repository.drop, upload)
            raise

    async def _mount(self, request: Request, repository: Repository, digest: str, source: str) -> bool:
        """Take a blob from a repository that the client may read, too; return whether it is there.

        A client that names no repository means all of them.
        """
        if not is_digest(digest) or (source and not is_repository(source)):
            return False
        principal = principal_of(request.scope)

        def work() -> bool:
            for name in (source,) if source else (repository.name, *repositories(self._store)):
                may_read = is_allowed(principal, Action.IMAGES_READ, name.partition("/")[0])
                if may_read and Repository(self._store, name).size_of(digest) is not None:
                    repository.add(digest)
                    return True
            return False

        return await asyncio.to_thread(work)

    async def _progress(self, request: Request, repository: Repository, name: str) -> Response:
        async with _Held(self, repository, name) as upload:
            return Response(status_code=204, headers=_location(repository, upload))

    async def _append(self, request: Request, repository: Repository, name: str) -> Response:
        async with _Held(self, repository, name) as upload:
            self._check_place(request, repository, upload)
            await _receive(request, upload)
            return Response(status_code=202, headers=_location(repository, upload))

    async def _finish(self, request: Request, repository: Repository, name: str) -> Response:
        digest = request.query_params.get("digest", "")
        if not is_digest(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"{digest or 'no digest'}: not a sha256 digest")
        async with _Held(self, repository, name) as upload:
            self._check_place(request, repository, upload)
            return await self._complete(request, repository, upload, digest)

    async def _complete(self, request: Request, repository: Repository, upload: Upload, digest: str) -> Response:
        await _receive(request, upload)
        await asyncio.to_thread(repository.finish, upload, digest)
        self._open.pop(upload.name, None)
        return Response(status_code=201, headers=_placed(repository, "blobs", digest))

    async def _cancel(self, request: Request, repository: Repository, name: str) -> Response:
        async with _Held(self, repository, name) as upload:
            self._open.pop(upload.name, None)
            await asyncio.to_thread(repository.drop, upload)
            return Response(status_code=204)

    def _check_place(self, request: Request, repository: Repository, upload: Upload) -> None:
        """Make sure that a piece continues where the last one ended."""
        asked = request.headers.get("content-range")
        match = None if asked is None else _PLACE.fullmatch(asked.strip())
        if asked is not None and (match is None or int(match[1]) != upload.size):
            raise RegistryError(
                416,
                "BLOB_UPLOAD_INVALID",
                f"Content-Range {asked}: the upload has {upload.size} bytes",
                _location(repository, upload),
            )

    # -- uploads between two requests -----------------------------------------------------------------------------

    async def take(self, repository: Repository, name: str) -> Upload:
        """Return an upload, for one request at a time.

        Raises:
            RegistryError: There is none, or another request has it.
        """
        if name in self._busy:
            raise RegistryError(409, "BLOB_UPLOAD_INVALID", f"upload {name}: another request writes it")
        self._busy.add(name)
        try:
            upload = self._open.get(name)
            is_own = upload is None or await asyncio.to_thread(repository.owns, name)
            if upload is None:
                upload = await asyncio.to_thread(repository.resume, name, self._most_bytes)
            if upload is None or not is_own:
                raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", f"upload {name}: no such upload")
        except BaseException:
            self._busy.discard(name)
            raise
        self._open[name] = upload
        return upload

    async def give_back(self, upload: Upload) -> None:
        """Keep an upload for its next request, unless it has ended."""
        self._busy.discard(upload.name)
        if self._open.pop(upload.name, None) is not None:
            await self._keep(upload)

    async def _keep(self, upload: Upload) -> None:
        if upload.is_closed:
            return
        self._open[upload.name] = upload
        while len(self._open) > _OPEN_UPLOADS:
            oldest = next((name for name in self._open if name not in self._busy), None)
            if oldest is None:
                return
            await asyncio.to_thread(self._open.pop(oldest).suspend)


class _Held:
    """An upload during one request."""

    def __init__(self, registry: Registry, repository: Repository, name: str) -> None:
        self._registry = registry
        self._repository = repository
        self._name = name
        self._upload: Upload | None = None

    async def __aenter__(self) -> Upload:
        self._upload = await self._registry.take(self._repository, self._name)
        return self._upload

    async def __aexit__(self, *failed: object) -> None:
        assert self._upload is not None
        await self._registry.give_back(self._upload)


async def _receive(request: Request, upload: Upload) -> None:
    """Append the body of a request. What has arrived of a body that breaks off stays.

    Raises:
        ImageTooLarge: The blob gets too long.
        StoreFailed: The disk refused.
    """
    held = bytearray()
    try:
        async for data in request.stream():
            held += data
            if len(held) >= _PIECE:
                piece, held = bytes(held), bytearray()
                await asyncio.to_thread(upload.write, piece)
    except ClientDisconnect:
        await asyncio.to_thread(upload.write, bytes(held))
        raise RegistryError(400, "BLOB_UPLOAD_INVALID", "the client left before the end of the body") from None
    await asyncio.to_thread(upload.write, bytes(held))


async def _whole_body(request: Request, most_bytes: int) -> bytes:
    held = bytearray()
    try:
        async for data in request.stream():
            held += data
            if len(held) > most_bytes:
                raise RegistryError(413, "MANIFEST_INVALID", f"the manifest has more than {most_bytes} bytes")
    except ClientDisconnect:
        raise RegistryError(400, "MANIFEST_INVALID", "the client left before the end of the body") from None
    return bytes(held)


def _whole(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(len(data))})
    return Response(data, headers=headers)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), headers={"Content-Type": "application/json", **_VERSION})


def _placed(repository: Repository, kind: str, digest: str) -> dict[str, str]:
    return {"Location": f"/v2/{quote(repository.name)}/{kind}/{digest}", "Docker-Content-Digest": digest}


def _location(repository: Repository, upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{quote(repository.name)}/blobs/uploads/{upload.name}",
        "Range": f"0-{max(0, upload.size - 1)}",
        "Docker-Upload-UUID": upload.name,
    }


def _as_answer(exc: ImageStoreError, target: Target) -> Exception:
    """Return an error of the store as one of the registry."""
    match exc:
        case BlobNotFound() if target.kind == "manifest" and exc.digest != target.item:
            return RegistryError(404, "MANIFEST_BLOB_UNKNOWN", f"{target.name}: {exc}; upload it first")
        case BlobNotFound():
            code = {"manifest": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN"}.get(target.kind, "BLOB_UPLOAD_UNKNOWN")
            return RegistryError(404, code, f"{target.name}: {exc}")
        case WrongDigest():
            return RegistryError(400, "DIGEST_INVALID", str(exc))
        case ImageTooLarge():
            return RegistryError(413, "SIZE_INVALID", str(exc))
        case InvalidImage():
            return RegistryError(400, "MANIFEST_INVALID", str(exc))
        case StoreFailed():
            _log.error("image store failed", error=str(exc))
            return RegistryError(507, "UNKNOWN", "the image store of this node cannot take it; its log says why")
        case _:
            return exc
