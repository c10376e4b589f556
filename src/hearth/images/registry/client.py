"""A client of one repository of a registry (OCI distribution specification 1.1).

Registries fail for a moment, ask for patience, break connections and lie. Reads are tried again, with pauses that the
registry may set; a blob goes on from its last byte; nothing counts as received before its digest was compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Final, TypeVar
from urllib.parse import quote, urljoin

import aiohttp
import msgspec
import yarl

from hearth.aio.clock import Clock, pause
from hearth.images.blobs import Upload
from hearth.images.documents import INDEX_TYPES, MANIFEST_TYPES, MAX_DOCUMENT_BYTES, Descriptor
from hearth.images.errors import ImageTooLarge, InvalidImage, RegistryAway, RegistryRefused
from hearth.images.registry.challenge import Prover
from hearth.images.registry.credentials import Auth
from hearth.images.registry.references import Reference
from hearth.models.addresses import unmapped
from hearth.models.registry_login import HUB
from hearth.telemetry.logs import get_logger

_HUB_HOST: Final = "registry-1.docker.io"
#: Tries of a request while nobody answers, and of a blob without any new byte.
_ATTEMPTS: Final = 5
#: Tries of a request that the registry answers with 429 or 5xx: half a minute, or more if it asks for that.
_PATIENT_ATTEMPTS: Final = 8
_FIRST_S: Final = 0.125
#: The longest pause that a registry may ask for.
_LONGEST_S: Final = 30.0
_CONNECT_S: Final = 10.0
#: Seconds without a byte after which a connection is given up.
_SILENT_S: Final = 30.0
_PIECE: Final = 1 << 20
_SHOWN: Final = 300
_ACCEPTED: Final = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))

T = TypeVar("T")
_log = get_logger(__name__)


class _Again(Exception):
    """An attempt failed for a reason that may pass.

    Args:
        reason: For the error that ends the attempts.
        after_s: The pause that the registry asks for; 0: none.
        attempts: How many attempts this is worth.
    """

    def __init__(self, reason: str, after_s: float = 0.0, attempts: int = _ATTEMPTS) -> None:
        super().__init__(reason)
        self.after_s, self.attempts = after_s, attempts


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


class Repository:
    """One repository of a registry, for one pull or push.

    Args:
        session: Without limits of its own.
        image: The reference as it was given, for messages.
        reference: What it means.
        auth: The credentials; ``None``: those of everybody.
        clock: Waits between attempts.
        actions: What the client wants to do there.
        is_patient: Try again what may pass.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        image: str,
        reference: Reference,
        auth: Auth | None,
        clock: Clock,
        actions: str = "pull",
        *,
        is_patient: bool = True,
    ) -> None:
        self._is_patient = is_patient
        is_plain = is_loopback(reference.registry)
        host = _HUB_HOST if reference.registry == HUB else reference.registry
        self._base = f"{'http' if is_plain else 'https'}://{host}/v2/{quote(reference.path)}/"
        self._image = image
        self._session = session
        self._clock = clock
        self._prover = Prover(session, f"repository:{reference.path}:{actions}", auth, is_plain=is_plain)

    # -- reads --------------------------------------------------------------------------------------------------------

    async def digest(self, reference: str) -> str:
        """Return the digest of a manifest as the registry states it; empty if it does not.

        Raises:
            RegistryRefused: The registry answers with an error.
            RegistryAway: It does not answer.
        """

        async def attempt() -> str:
            async with self._ask("HEAD", f"manifests/{quote(reference)}", headers={"Accept": _ACCEPTED}) as answer:
                await self._check(answer, 200)
                return answer.headers.get("Docker-Content-Digest", "")

        return await self._retrying(attempt)

    async def manifest(self, reference: str) -> tuple[bytes, str]:
        """Return the bytes of a manifest and the media type that the registry states.

        Raises:
            InvalidImage: It is too long.
            RegistryRefused: The registry answers with an error.
            RegistryAway: It does not answer.
        """

        async def attempt() -> tuple[bytes, str]:
            async with self._ask("GET", f"manifests/{quote(reference)}", headers={"Accept": _ACCEPTED}) as answer:
                await self._check(answer, 200)
                data = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE):
                    data += piece
                    if len(data) > MAX_DOCUMENT_BYTES:
                        raise InvalidImage(f"{self._image}: a manifest of more than {MAX_DOCUMENT_BYTES} bytes")
                return bytes(data), answer.headers.get("Content-Type", "").partition(";")[0].strip()

        return await self._retrying(attempt)

    async def download(self, blob: Descriptor, upload: Upload) -> None:
        """Write a blob into an upload, which is not committed; a broken connection goes on from the last byte.

        Raises:
            InvalidImage: The registry has more or fewer bytes than the manifest says.
            RegistryRefused: The registry answers with an error.
            RegistryAway: It does not answer, or breaks off again and again.
            StoreFailed: The disk refused.
        """
        failures = 0
        while upload.size < blob.size or not blob.size:
            before = upload.size
            try:
                await self._download(blob, upload)
                if upload.size == blob.size:
                    return
                raise _Again(f"ended after {upload.size} of {blob.size} bytes")
            except _Again as exc:
                failures = 1 if upload.size > before else failures + 1
                if failures >= exc.attempts:
                    raise RegistryAway(self._image, f"{blob.digest}: {exc}") from exc
                await self._pause(exc, failures)

    async def _download(self, blob: Descriptor, upload: Upload) -> None:
        skipped = upload.size
        headers = {"Range": f"bytes={upload.size}-"} if upload.size else {}
        async with self._ask("GET", f"blobs/{blob.digest}", headers=headers) as answer:
            await self._check(answer, 206 if answer.status == 206 and upload.size else 200)
            if answer.status == 206:
                skipped = 0
            length = answer.content_length
            if answer.status == 200 and length is not None and length != blob.size:
                raise InvalidImage(
                    f"{self._image}: {blob.digest} has {length} bytes at the registry; its manifest says {blob.size}"
                )
            async for piece in answer.content.iter_chunked(_PIECE):
                fresh = piece[min(skipped, len(piece)) :]
                skipped -= len(piece) - len(fresh)
                try:
                    await asyncio.to_thread(upload.write, fresh)
                except ImageTooLarge as exc:
                    raise InvalidImage(
                        f"{self._image}: the registry sends more of {blob.digest} than the {blob.size} bytes of its "
                        "manifest"
                    ) from exc

    # -- writes -------------------------------------------------------------------------------------------------------

    async def has(self, digest: str) -> bool:
        """Return whether the repository has a blob. Raises as :meth:`digest` does."""

        async def attempt() -> bool:
            async with self._ask("HEAD", f"blobs/{digest}") as answer:
                if answer.status == 404:
                    return False
                await self._check(answer, 200)
                return True

        return await self._retrying(attempt)

    async def upload(self, blob: Descriptor, pieces: Callable[[], AsyncIterator[bytes]]) -> None:
        """Send a blob, from its beginning at each attempt.

        Raises:
            RegistryRefused: The registry answers with an error.
            RegistryAway: It does not answer.
        """

        async def attempt() -> None:
            async with self._ask("POST", "blobs/uploads/") as answer:
                await self._check(answer, 202)
                place = urljoin(str(answer.url), answer.headers.get("Location", ""))
            joint = "&" if "?" in place else "?"
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
            target = f"{place}{joint}digest={blob.digest}"
            async with self._ask("PUT", target, headers=headers, data=pieces) as answer:
                await self._check(answer, 201)

        await self._retrying(attempt)

    async def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Store a manifest. Raises as :meth:`upload` does."""

        async def attempt() -> None:
            headers = {"Content-Type": media_type}
            async with self._ask("PUT", f"manifests/{quote(reference)}", headers=headers, data=data) as answer:
                await self._check(answer, 201)

        await self._retrying(attempt)

    # -- requests -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        data: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; once more with a proof if the registry asks for one.

        Raises:
            _Again: It does not answer, or the answer breaks off.
        """
        target = path if "://" in path else self._base + path
        is_own = yarl.URL(target).origin() == yarl.URL(self._base).origin()  # only the registry itself gets a proof
        try:
            for is_last in (False, True):
                async with self._session.request(
                    method,
                    target,
                    headers={**(headers or {}), **(self._prover.headers if is_own else {})},
                    data=data() if callable(data) else data,
                    timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_SILENT_S),
                ) as answer:
                    if answer.status == 401 and is_own and not is_last:
                        if await self._prover.meet(answer.headers.getall("WWW-Authenticate", [])):
                            continue
                    yield answer
                    return
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise _Again(str(exc) or f"no answer within {_SILENT_S:g} s") from exc

    async def _check(self, answer: aiohttp.ClientResponse, expected: int) -> None:
        """Make sure that an answer is the expected one.

        Raises:
            _Again: It may be another one later.
            RegistryRefused: It stays as it is.
        """
        if answer.status == expected:
            return
        said = _said(await answer.content.read(_PIECE)) or answer.reason or ""
        if answer.status == 429 or answer.status >= 500:
            after_s = _seconds(answer.headers.get("Retry-After", ""))
            raise _Again(f"{answer.status} {said}".strip(), after_s, _PATIENT_ATTEMPTS)
        raise RegistryRefused(self._image, answer.status, said)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for failures in itertools.count(1):
            try:
                return await attempt()
            except _Again as exc:
                if failures >= exc.attempts or not self._is_patient:
                    raise RegistryAway(self._image, str(exc)) from exc
                await self._pause(exc, failures)
        raise AssertionError("unreachable")

    async def _pause(self, again: _Again, failures: int) -> None:
        delay_s = max(_FIRST_S * 2.0**failures, min(again.after_s, _LONGEST_S))
        _log.info("registry asked again", image=self._image, error=str(again), in_s=delay_s)
        await pause(self._clock, delay_s)


def new_session() -> aiohttp.ClientSession:
    """Return a session for :class:`Repository`, to be closed by the caller.

    A deployer names a registry, and the registry names further addresses. None of them leads to a
    link-local address, where clouds keep the credentials of a machine, or from TLS to plain HTTP.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=_socket),
        trace_configs=[trace],
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    )


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    host = str(address[4][0])
    if unmapped(ipaddress.ip_address(host.partition("%")[0])).is_link_local:
        raise PermissionError(errno.EACCES, f"{host} is a link-local address")
    return socket.socket(*address[:3])


async def _check_redirect(
    session: aiohttp.ClientSession, context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    """Refuse a redirect to plain HTTP, unless it stays on this machine."""
    headers = redirect.response.headers
    try:
        target = redirect.url.join(yarl.URL(str(headers.get("Location") or headers.get("URI", ""))))
    except ValueError as exc:
        raise aiohttp.ClientError(f"{redirect.url.host} redirects to what is no address") from exc
    if target.scheme == "https" or (redirect.url.scheme == "http" and is_loopback(target.host or "")):
        return
    raise aiohttp.ClientError(f"{redirect.url.host} redirects to {target.scheme}://{target.host}, which has no TLS")


def is_loopback(registry: str) -> bool:
    """Return whether a registry is on this machine: only there it may speak HTTP without TLS."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _said(data: bytes) -> str:
    """Return the message of an error; what is no error of a registry is not shown."""
    try:
        errors = msgspec.json.decode(data, type=_Errors).errors
    except (ValueError, RecursionError):
        return ""
    return "; ".join(f"{error.code}: {error.message}".strip(": ") for error in errors)[:_SHOWN]


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
