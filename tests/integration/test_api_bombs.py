"""Bodies that are meant to hurt: each is answered 400, soon, and the next request is served."""

from __future__ import annotations

import gzip

import httpx
import pytest
from tests.support.api import message

DEEP = 200_000
DIGITS = 200_000

BOMBS = {
    "deep lists": "[" * DEEP,
    "deep lists, closed": '{"app":' + "[" * DEEP + "]" * DEEP + "}",
    "deep objects": '{"a":' * DEEP,
    "deep in an unknown key": '{"unknown":' + "[" * DEEP + "]" * DEEP + ',"app":{"name":"x","config":3}}',
    "many digits": '{"app":{"name":' + "9" * DIGITS + "}}",
    "many digits in a fraction": '{"app":{"name":0.' + "9" * DIGITS + "}}",
    "a large exponent": '{"app":{"name":1e999999999}}',
    "no string": '{"app":{"name":"' + "x" * 100_000,
    "a control in a string": '{"app":{"name":"a\x00b"}}',
    "a mark of byte order": "\ufeff" + '{"app":{"name":"x"}}',
    "words of another language": '{"app":{"name":NaN}}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_a_bomb_is_answered_400(api: httpx.AsyncClient, bomb: str) -> None:
    for method, path in (("POST", "/v1/apps"), ("PATCH", "/v1/apps/x"), ("PUT", "/v1/apps/x/routes/y")):
        answer = await api.request(method, path, content=bomb.encode("utf-8", "surrogatepass"))
        assert answer.status_code == 400, (method, path)
        assert message(answer)
    assert (await api.get("/v1/apps")).json()["apps"] == []


@pytest.mark.parametrize("field", ["memory", "timeout", "idle_timeout"])
@pytest.mark.parametrize("number", ["9" * DIGITS, "1e999999999", "-" + "9" * 400, "1.5"])
async def test_numbers_beyond_all_bounds_are_no_numbers_of_ours(
    api: httpx.AsyncClient, field: str, number: str
) -> None:
    body = f'{{"route":{{"path":"/x","image":"i","{field}":{number}}}}}'
    answer = await api.post("/v1/apps/x/routes", content=body)
    assert (answer.status_code, message(answer)) == (400, "Invalid JSON")


async def test_what_is_packed_stays_packed(api: httpx.AsyncClient) -> None:
    packed = gzip.compress(b'{"app":{"name":"x"}}' + b" " * 50_000_000)
    answer = await api.post("/v1/apps", content=packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, message(answer)) == (400, "Invalid JSON")
