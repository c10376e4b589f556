"""The registry, and a deployer of one app with input of any form: nothing breaks, nothing of another app leaks."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import hypothesis
import pytest
from hypothesis import strategies as st
from tests.support.clock import FakeClock
from tests.support.door import guarded
from tests.support.layers import archive, entry, put_image

from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import digest, new_token
from hearth.images.documents import INDEX_TYPE, MANIFEST_TYPE
from hearth.images.layout import ImageStore
from hearth.images.repositories import Repository
from hearth.models.principal import AuthMode, Role
from hearth.models.times import ZERO
from hearth.models.token import Token
from hearth.server.api import Api
from hearth.server.registry.registry import Registry

ADMIN: Final = "token-of-the-admin-1234"
SECRET: Final = b"code of app b"
DIGEST: Final = f"sha256:{hashlib.sha256(SECRET).hexdigest()}"


class World:
    """A registry that asks for tokens, with an image of app b, and a deployer of app a."""

    def __init__(self, folder: Path) -> None:
        self.store = ImageStore(folder / "images")
        self.store.make()
        self.registry = Registry(self.store, 100_000)
        self.value = new_token()
        deployer = Token(
            id="1", name="of a", role=Role.DEPLOYER, apps=("a",), digest=digest(self.value.encode()), created_at=ZERO
        )

        async def find(key: str) -> Token | None:
            return deployer if key == deployer.digest else None

        stored = StoredTokens(find, FakeClock())
        api = Api(None, FakeClock(), dict, registry=self.registry)
        app = guarded(api, AuthMode.REQUIRED, admin=ADMIN, stored=stored, clock=FakeClock())
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://registry")
        self.image = put_image(self.store, [archive(entry("func.py", SECRET))], ["b/f:1"])
        with self.store.blobs.open(self.image) as manifest:
            self.manifest = manifest.read()

    async def ask(self, method: str, path: str, token: str = "", **fields: Any) -> httpx.Response:
        """Send a request of the deployer, or of another token."""
        url = httpx.URL("http://registry").copy_with(raw_path=path.encode("latin-1", "replace"))
        headers = {**fields.pop("headers", {}), "Authorization": f"Bearer {token or self.value}"}
        return await self.http.request(method, url, headers=headers, **fields)

    async def push_as_admin(self) -> None:
        """Upload the secret to b/f."""
        answer = await self.ask("POST", f"/v2/b/f/blobs/uploads/?digest={DIGEST}", ADMIN, content=SECRET)
        assert answer.status_code == 201, answer.text

    async def close(self) -> None:
        await self.http.aclose()
        await self.registry.close()

    def of_b(self) -> tuple[list[str], bool, str | None]:
        """All that app b has: tags, its blob, what its tag means."""
        repository = Repository(self.store, "b/f")
        return repository.tags(), repository.size_of(DIGEST) is not None, self.store.resolve("b/f:1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    opened = World(tmp_path)
    yield opened
    await opened.close()


# -- what a deployer of another app tries -----------------------------------------------------------------------------


async def test_a_deployer_of_one_app_gets_no_blob_of_another(world: World) -> None:
    await world.push_as_admin()
    sources = [
        "b/f",
        "",
        "b/f/",
        "/b/f",
        "b%2Ff",
        "a/../b/f",
        "a/f/../../b/f",
        "b",
        "B/f",
        "b/f&from=a/f",
        "a/f&from=b/f",
    ]
    for source in sources:
        path = f"/v2/a/f/blobs/uploads/?mount={DIGEST}" + (f"&from={source}" if source else "")
        answer = await world.ask("POST", path)
        assert answer.status_code == 202, f"from={source}: an upload begins instead"
        assert (await world.ask("GET", f"/v2/a/f/blobs/{DIGEST}")).status_code == 404
    for method in ("GET", "HEAD", "DELETE"):
        assert (await world.ask(method, f"/v2/b/f/blobs/{DIGEST}")).status_code == 404
        assert (await world.ask(method, "/v2/b/f/manifests/1")).status_code == 404
        assert (await world.ask(method, f"/v2/a/f/manifests/{world.image}")).status_code == 404
    mounted = await world.ask("POST", f"/v2/a/f/blobs/uploads/?mount={DIGEST}&from=b/f", ADMIN)
    assert mounted.status_code == 201, "who reads both may"


async def test_a_deployer_of_one_app_names_no_content_of_another_in_a_manifest(world: World) -> None:
    index = (
        f'{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":'
        f'[{{"mediaType":"{MANIFEST_TYPE}","digest":"{world.image}","size":{len(world.manifest)}}}]}}'
    )
    for media_type, body in ((MANIFEST_TYPE, world.manifest), (INDEX_TYPE, index.encode())):
        answer = await world.ask("PUT", "/v2/a/f/manifests/1", content=body, headers={"Content-Type": media_type})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert (await world.ask("GET", "/v2/a/f/tags/list")).status_code == 404


async def test_a_deployer_of_one_app_continues_no_upload_of_another(world: World) -> None:
    begun = await world.ask("POST", "/v2/b/f/blobs/uploads/", ADMIN)
    name = begun.headers["docker-upload-uuid"]
    for method in ("GET", "PATCH", "DELETE"):
        assert (await world.ask(method, f"/v2/a/f/blobs/uploads/{name}", content=b"x")).status_code == 404
        assert (await world.ask(method, f"/v2/b/f/blobs/uploads/{name}", content=b"x")).status_code == 404
    answer = await world.ask("PUT", f"/v2/a/f/blobs/uploads/{name}?digest={DIGEST}", content=SECRET)
    assert answer.status_code == 404
    assert (await world.ask("GET", f"/v2/b/f/blobs/uploads/{name}", ADMIN)).headers["range"] == "0-0"


# -- input of any form ------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["a/f", "b/f", "a", "a/f/g", "A/f", "a/F", "a//f", "a/..", "%61/f", "apps/f", "b%2Ff", ".", ""]
)
_ITEMS = st.one_of(
    st.sampled_from(["1", DIGEST, DIGEST.upper(), "sha256:", "sha512:1", "..", "%2e%2e", "%00", "uploads", "latest"]),
    st.text(max_size=20).map(lambda text: quote(text, safe="")),
)
_KINDS = st.sampled_from(["manifests/", "blobs/", "blobs/uploads/", "tags/list", "referrers/", "tags/", "_catalog", ""])
_QUERIES = st.dictionaries(
    st.sampled_from(["mount", "from", "digest", "n", "last", "_state"]),
    st.one_of(st.sampled_from([DIGEST, "b/f", "a/f", "1", "-1", "99999999999", "b"]), st.text(max_size=10)),
    max_size=3,
)
_HEADERS = st.dictionaries(
    st.sampled_from(["Range", "Content-Range", "Content-Type", "Accept", "If-None-Match"]),
    st.sampled_from(
        [
            "bytes=0-0",
            "bytes=5-1",
            "bytes=-1",
            "0-3",
            "9-1",
            "0-",
            "x",
            MANIFEST_TYPE,
            INDEX_TYPE,
            "bytes=0-0,2-3",
            "*/*",
        ]
    ),
    max_size=3,
)
_BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"{}", b'{"x":' + b"[" * 3000, b'{"schemaVersion":2,"layers":[{}]}', b'{"config":{"digest":1}}']),
)


@hypothesis.settings(
    max_examples=200, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True
)
@hypothesis.given(data=st.data())
def test_no_input_breaks_the_registry_or_shows_another_app(
    shared: tuple[World, asyncio.Runner], data: st.DataObject
) -> None:
    world, runner = shared
    method = data.draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]))
    kind = data.draw(_KINDS)
    path = f"/v2/{data.draw(_NAMES)}/{kind}{data.draw(_ITEMS) if kind.endswith('/') else ''}"
    query = httpx.QueryParams(data.draw(_QUERIES))
    answer = runner.run(
        world.ask(
            method,
            f"{path}?{query}" if query else path,
            headers=data.draw(_HEADERS),
            content=data.draw(_BODIES),
        )
    )
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        told = answer.json()
        errors = told["errors"] if "errors" in told else [told.get("error", told)]
        assert all(error["message"] for error in errors)
    assert SECRET not in answer.content
    assert world.image not in answer.text
    assert world.of_b() == (["1"], True, world.image)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        world = World(tmp_path_factory.mktemp("registry"))
        runner.run(world.push_as_admin())
        yield world, runner
        runner.run(world.close())
