"""Destinations of async calls: their form, what is sent, how it is signed, and which addresses get it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import time

import msgspec
import pytest

from hearth.models.call import Call
from hearth.models.call_result import CallResult
from hearth.models.destination import DEPTH, INSIDE_BYTES, MAX_DEPTH, callback_of, is_allowed, validate_destination
from hearth.models.errors import InvalidDelivery
from hearth.server.callbacks import sign
from hearth_fdk import is_signed

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
CALL = Call(
    id="01C", app_name="a b", path="/f", image="f:1", type="async", on_success="https://x/ok", on_failure="b/alarm"
)
DONE = Call(id="01C", app_name="a b", path="/f", status="success", response_status=200, created_at=NOW)
RESULT = CallResult(status=200, headers=(("X", "y"),), body=b"hi", expires_at=NOW)


@pytest.mark.parametrize(
    "text",
    ["https://x.example/a?b=c", "http://10.0.0.1:8080", "https://[::1]/", "app/route", "app/a/b-c"],
)
def test_a_destination_is_a_url_or_a_route(text: str) -> None:
    assert validate_destination("on_success", text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "app/",
            "/route",
            "ftp://x/",
            "http://",
            "https://x:y/",
            "https://x:99999/",
            "https://x/#f",
            "a/b?c",
        ),
        *("https://x/ y", "https://é/", "https://x/\n", "x" * 3000 + "/y", "javascript://x/", "http://[::1/", 7),
    ],
)
def test_other_destinations_are_refused(text: object) -> None:
    with pytest.raises(InvalidDelivery, match="on_failure must be an http or https URL, or APP/ROUTE"):
        validate_destination("on_failure", text)


def test_a_destination_has_no_password() -> None:
    with pytest.raises(InvalidDelivery, match="must not contain a password"):
        validate_destination("on_success", "https://user:secret@x/")


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1"),
    ],
)
def test_addresses_that_are_not_public_get_nothing(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert not is_allowed(parsed, ())
    assert is_allowed(parsed, [ipaddress.ip_network(address)])


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_do(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address), ())


def test_a_network_allows_its_addresses_only() -> None:
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    found = {
        text: is_allowed(ipaddress.ip_address(text), allowed) for text in ("10.1.2.3", "10.2.0.1", "fd00::1", "::1")
    }
    assert found == {"10.1.2.3": True, "10.2.0.1": False, "fd00::1": True, "::1": False}
    assert is_allowed(ipaddress.ip_address("::ffff:10.1.0.1"), allowed)


def sent(record: Call, result: CallResult | None, message: Call = CALL) -> tuple[Call, dict[str, object]]:
    callback = callback_of(message, record, result, NOW, "https://node")
    assert callback is not None
    return callback, json.loads(callback.payload)


def test_the_record_and_the_result_are_sent() -> None:
    callback, body = sent(DONE, RESULT)
    assert (callback.id, callback.url, callback.path) == ("01C-callback", "https://x/ok", "callback:/f")
    assert (callback.type, callback.status, callback.attempt) == ("async", "queued", 1)
    assert callback.retry is not None
    assert callback.retry.attempts == 8
    assert body["call"] == {
        "id": "01C",
        "status": "success",
        "app_name": "a b",
        "path": "/f",
        "created_at": "2026-01-02T00:00:00.000Z",
        "started_at": "0001-01-01T00:00:00.000Z",
        "completed_at": "0001-01-01T00:00:00.000Z",
        "response_status": 200,
    }
    assert body["result"] == {"status": 200, "headers": [["X", "y"]], "body": "hi"}


@pytest.mark.parametrize("status", ["error", "timeout", "expired"])
def test_other_ends_have_the_other_destination(status: str) -> None:
    failed = msgspec.structs.replace(DONE, status=status, error="why", attempt=2)
    callback, body = sent(failed, msgspec.structs.replace(RESULT, error="shown", status=502))
    assert callback.url == "b/alarm"
    assert body["result"] == {"status": 502, "headers": [["X", "y"]], "error": "shown"}
    assert sent(failed, None)[1]["result"] is None


def test_a_body_is_sent_as_it_is_or_by_its_address() -> None:
    binary = msgspec.structs.replace(RESULT, body=b"\xff")
    assert sent(DONE, binary)[1]["result"] == {"status": 200, "headers": [["X", "y"]], "body_base64": "/w=="}
    large = msgspec.structs.replace(RESULT, body=b"x" * (INSIDE_BYTES + 1))
    where = "https://node/v1/apps/a%20b/calls/01C/result"
    expected = {"status": 200, "headers": [["X", "y"]], "bytes": INSIDE_BYTES + 1, "location": where}
    assert sent(DONE, large)[1]["result"] == expected


def test_a_call_without_a_destination_sends_nothing() -> None:
    assert callback_of(msgspec.structs.replace(CALL, on_success=""), DONE, RESULT, NOW, "") is None


def test_destinations_that_name_each_other_end() -> None:
    message, depths = CALL, []
    while (callback := callback_of(message, DONE, RESULT, NOW, "")) is not None:
        depths.append(callback.headers[DEPTH])
        message = msgspec.structs.replace(CALL, headers=callback.headers)
    assert depths == [[str(n)] for n in range(1, MAX_DEPTH + 1)]
    assert callback_of(msgspec.structs.replace(CALL, headers={DEPTH: ["x"]}), DONE, RESULT, NOW, "") is None


def test_a_signature_is_of_the_time_the_body_and_a_key() -> None:
    now = int(time.time())
    signature = sign(b"body", [b"new", b"old"], now)
    assert all(is_signed(b"body", signature, key) for key in ("new", "old", ["other", "old"]))
    assert not is_signed(b"body", signature, "other")
    assert not is_signed(b"bodY", signature, "new")
    assert not is_signed(b"body", sign(b"body", [b"new"], now - 301), "new")
    assert is_signed(b"body", sign(b"body", [b"new"], now - 301), "new", tolerance_s=1000)


@pytest.mark.parametrize("signature", ["", "t=1", "v1=ab", "t=x,v1=ab", "t=1,t=2,v1=ab", "t=²,v1=ab", "t=1,v1=é"])
def test_what_is_no_signature_is_not_valid(signature: str) -> None:
    assert not is_signed(b"body", signature, "key", tolerance_s=10**12)
