"""A small scripted image registry on 127.0.0.1, from which an Engine fetches without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import ssl
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from aiohttp import web

_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
Script = Callable[[web.Request], "web.StreamResponse | None"]


class Registry:
    """Serves one tiny image under every name that ``serves`` accepts; a script may answer instead.

    Attributes:
        port: Where it listens.
        body: Of the last request.
        requests: What was asked for, as ``GET /v2/...``, in order.
        authorizations: What was shown, in order.
        asked: Set when the first request has come.
        silent: Accept requests, answer none until :meth:`release`.
        script: Looks at each request first; what it returns is the answer.
        holds: The requests that wait for :meth:`release` before they are answered.
        held: Set when the first of them has come.
    """

    def __init__(self) -> None:
        self.port = 0
        self.body = b""
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.script: Script = lambda request: None
        self.serves: Callable[[str], bool] = lambda name: True
        self.silent = False
        self.asked = asyncio.Event()
        self.holds: Callable[[web.Request], bool] = lambda request: False
        self.held = asyncio.Event()
        self._released = asyncio.Event()
        self._blobs: dict[str, bytes] = {}
        self.manifest = self._image()
        self.digest = _digest(self.manifest)

    @property
    def host(self) -> str:
        """As it stands in a reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def fetches(self) -> int:
        """How often an image was asked for by its tag: each fetch of an Engine begins with one such question."""
        return sum(asked.startswith("HEAD") and "/manifests/" in asked for asked in self.requests)

    def release(self) -> None:
        """Let go of those who are kept waiting."""
        self._released.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        if "Authorization" in request.headers:
            self.authorizations.append(request.headers["Authorization"])
        parts = request.path.split("/")
        self.requests.append(f"{request.method} {request.path}")
        self.body = await request.read()
        self.asked.set()
        if self.silent or self.holds(request):
            self.held.set()
            await self._released.wait()
        if (scripted := self.script(request)) is not None:
            return scripted
        if request.path == "/v2/":
            return web.json_response({})
        if "manifests" in parts:
            return self._manifest("/".join(parts[2:-2]))
        return web.Response(body=self._blobs[parts[-1]], content_type="application/octet-stream")

    def _manifest(self, name: str) -> web.Response:
        if not self.serves(name):
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Content-Type": _MANIFEST_TYPE, "Docker-Content-Digest": self.digest}
        return web.Response(body=self.manifest, headers=headers)

    def _image(self) -> bytes:
        layer = _tar()
        packed = gzip.compress(layer, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": self._blob(config, "application/vnd.docker.container.image.v1+json"),
                "layers": [self._blob(packed, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
            }
        ).encode()

    def _blob(self, data: bytes, media_type: str) -> dict[str, object]:
        digest = _digest(data)
        self._blobs[digest] = data
        return {"mediaType": media_type, "size": len(data), "digest": digest}


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A registry's error."""
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)


@contextlib.asynccontextmanager
async def open_registry(certificate: tuple[Path, Path] | None = None) -> AsyncIterator[Registry]:
    """A registry that serves until the end of the block; with TLS if it has a certificate and its key."""
    registry = Registry()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", registry.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    registry.port = runner.addresses[0][1]
    try:
        yield registry
    finally:
        registry.release()
        await runner.cleanup()


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("hello")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    return packed.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
