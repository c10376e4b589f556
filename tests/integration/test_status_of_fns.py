"""What a failed call of a fn is for its client, by its id and through a trigger: the table of API v2, over HTTP."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.extended import Extended, extended_node

from hearth.drivers.base import (
    DriverError,
    EndedEarly,
    ImageError,
    ImageHasVolumes,
    ImageRefused,
    NeverListened,
    OutOfTime,
)
from hearth.testing.script import Pipe, Script, Step

_numbers = itertools.count()
PULL_FAILED = "Failed to pull image 'wanted': why"
INITIALIZE = "Container failed to initialize, please ensure you are using the latest fdk and check the logs"
INITIALIZED_LATE = "Container initialization timed out, please ensure you are using the latest fdk and check the logs"


async def called(on: Extended, plan: Script | None, **fields: Any) -> list[httpx.Response]:
    """The answers to one call by the id and one through a trigger, each of a fn of its own with this image."""
    if plan is not None:
        on.driver.images["wanted"] = plan
    answers = []
    for is_trigger in (False, True):
        name = f"a{next(_numbers)}"
        app_id = (await on.http.post("/v2/apps", json={"name": name})).json()["id"]
        fn = {"app_id": app_id, "name": "f", "image": "wanted", **fields}
        fn_id = (await on.http.post("/v2/fns", json=fn)).json()["id"]
        trigger = {"app_id": app_id, "fn_id": fn_id, "name": "t", "type": "http", "source": "/s"}
        assert (await on.http.post("/v2/triggers", json=trigger)).status_code == 200
        answer = await on.http.post(f"/t/{name}/s" if is_trigger else f"/invoke/{fn_id}", json={})
        answers.append(answer)
        if "fn-call-id" in answer.headers and answer.status_code != 503:
            record = (await on.http.get(f"/v2/fns/{fn_id}/calls/{answer.headers['fn-call-id']}")).json()
            assert record["status"] == ("timeout" if answer.json()["message"] == "Timed out" else "error")
    return answers


def refusing(error: DriverError) -> Script:
    """An image of which no container is made."""
    return Script(create=Step(error=error))


def ending(error: DriverError) -> Script:
    """An image whose containers do not start."""
    return Script(start=Step(error=error))


def answering(given: bytes) -> Script:
    """A function that gives this answer to each request; to none at all it closes the connection."""

    async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        while await stdin.read():
            if not given:
                return 0
            await stdout.write(given)
        return 0

    return Script(main=main)


def shortage() -> DriverError:
    error = DriverError("no pipe")
    error.__cause__ = OSError(errno.EMFILE, "too many open files")
    return error


OK = b"HTTP/1.1 200 OK\r\n"
ROWS: list[tuple[Script | None, int, str]] = [
    (refusing(ImageHasVolumes("wanted", ["/data"])), 400, "image has Volume definition"),
    (None, 404, "Failed to pull image 'wanted': no such image"),
    (refusing(ImageRefused("wanted", 401, "why")), 401, PULL_FAILED),
    (refusing(ImageRefused("wanted", 403, "why")), 403, PULL_FAILED),
    (refusing(ImageError("wanted", "why")), 502, PULL_FAILED),
    (refusing(ImageError("wanted", "why", 502)), 502, PULL_FAILED),
    (refusing(OutOfTime("pull", 600)), 504, "Image pull timed out"),
    (refusing(DriverError("secret")), 500, "internal server error"),
    (ending(EndedEarly("exit code 1")), 502, INITIALIZE),
    (ending(NeverListened("no socket")), 504, INITIALIZED_LATE),
    (ending(shortage()), 503, "Timed out - server too busy"),
    (answering(b""), 502, "error receiving function response"),
    (answering(b"HTTP/1.1 502 Bad\r\nContent-Length: 1\r\n\r\nx"), 502, "function failed"),
    (answering(b"HTTP/1.1 504 Late\r\nContent-Length: 1\r\n\r\nx"), 504, "Timed out"),
    (answering(b"HTTP/1.1 418 Tea\r\nContent-Length: 1\r\n\r\nx"), 502, "invalid function response"),
    (answering(OK + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001), 502, "function response body too large"),
    (
        answering(OK + b"X: " + b"x" * 2000 + b"\r\nContent-Length: 0\r\n\r\n"),
        502,
        "function response header too large",
    ),
]


async def test_each_failure_has_its_status_and_text_by_id_and_through_a_trigger(tmp_path: Path) -> None:
    async with extended_node(tmp_path, max_response_size=1000, max_hdr_response_size=2000) as on:
        for plan, status, text in ROWS:
            on.driver.images.pop("wanted", None)
            for answer in await called(on, plan):
                assert (answer.status_code, answer.json()) == (status, {"message": text})
                assert answer.headers["content-type"] == "application/json; charset=utf-8"
                assert len(answer.headers["fn-call-id"]) == 26
                assert answer.headers.get("retry-after") == ("15" if status == 503 else None)


async def test_what_never_fits_is_refused_before_there_is_a_call(tmp_path: Path) -> None:
    async with extended_node(tmp_path) as on:
        for answer in await called(on, None, memory=8192):
            assert (answer.status_code, answer.json()) == (400, {"message": "Requested CPU/Memory cannot be allocated"})
            assert "fn-call-id" not in answer.headers


@pytest.mark.parametrize(("public", "base"), [("https://functions.example/", "https://functions.example"), ("", "")])
async def test_the_operator_says_where_clients_call_functions(tmp_path: Path, public: str, base: str) -> None:
    async with extended_node(tmp_path, public_url=public) as on:
        app_id = (await on.http.post("/v2/apps", json={"name": "a"})).json()["id"]
        made = (await on.http.post("/v2/fns", json={"app_id": app_id, "name": "f", "image": "x"})).json()
        trigger = {"app_id": app_id, "fn_id": made["id"], "name": "t", "type": "http", "source": "/s"}
        hooked = (await on.http.post("/v2/triggers", json=trigger)).json()
        base = base or "http://localhost"
        for kind, shown, name, path in (
            ("fns", made, "fnproject.io/fn/invokeEndpoint", f"/invoke/{made['id']}"),
            ("triggers", hooked, "fnproject.io/trigger/httpEndpoint", "/t/a/s"),
        ):
            assert shown["annotations"] == {name: f"{base}{path}"}
            assert (await on.http.get(f"/v2/{kind}/{shown['id']}")).json()["annotations"] == shown["annotations"]
            listed = (await on.http.get(f"/v2/{kind}?app_id={app_id}")).json()["items"]
            assert [each["annotations"] for each in listed] == [shown["annotations"]]
