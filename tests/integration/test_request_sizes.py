"""The limits of what a node reads of one request (settings of the operator)."""

from __future__ import annotations

from pathlib import Path

from tests.support.extended import extended_node


async def test_the_api_reads_at_most_its_limit(tmp_path: Path) -> None:
    async with extended_node(tmp_path, max_api_request_size=1000) as on:
        body = b'{"app":{"name":"x"}}'
        assert (await on.http.post("/v1/apps", content=body + b" " * (1001 - len(body)))).status_code == 413
        assert (await on.http.post("/v1/apps", content=body + b" " * (1000 - len(body)))).status_code == 200


async def test_bodies_that_are_held_have_a_limit_of_their_own(tmp_path: Path) -> None:
    async with extended_node(tmp_path, max_held_request_size=1000) as on:
        held = [await on.route(path="json"), await on.route(path="later", format="http", type="async", timeout=1)]
        for path in held:
            assert (await on.http.post(path, content=b"{}" + b" " * 999)).status_code == 413
        assert (await on.http.post(held[0], content=b"{}" + b" " * 998)).status_code == 200
        assert (await on.http.post(held[1], content=b"{}" + b" " * 998)).status_code == 202


async def test_api_v2_and_calls_of_fns_have_the_same_limits_and_their_own_form_of_errors(tmp_path: Path) -> None:
    async with extended_node(tmp_path, max_api_request_size=1000, max_request_size=2000) as on:
        for path, most in (("/v2/apps", 1000), ("/invoke/none", 2000), ("/t/none/x", 2000)):
            refused = await on.http.post(path, content=b"x" * (most + 1))
            assert refused.status_code == 413
            text = f"Content-Length too large for this server, {most + 1} > max {most}"
            assert refused.json() == {"message": text}
            assert (await on.http.post(path, content=b"x" * most)).status_code in (400, 404)


async def test_the_body_of_a_detached_call_is_held(tmp_path: Path) -> None:
    async with extended_node(tmp_path, max_held_request_size=1000) as on:
        app_id = (await on.http.post("/v2/apps", json={"name": "held"})).json()["id"]
        fn = {"app_id": app_id, "name": "f", "image": "none"}
        path = f"/invoke/{(await on.http.post('/v2/fns', json=fn)).json()['id']}"
        detached = {"Fn-Invoke-Type": "detached"}
        assert (await on.http.post(path, content=b"x" * 1001, headers=detached)).status_code == 413
        accepted = await on.http.post(path, content=b"x" * 1000, headers=detached)
        assert (accepted.status_code, accepted.content) == (202, b"")
        assert len(accepted.headers["fn-call-id"]) == 26
