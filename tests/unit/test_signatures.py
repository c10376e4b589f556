"""Signatures of webhooks: which requests show one, and which bodies and times it is good for."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.authorize.signatures import read_claim
from hearth.models.call_auth import Signature
from hearth.models.errors import SignatureWrong

KEY = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
NOW = 1_700_000_000
#: The example of GitHub's documentation ("Validating webhook deliveries").
GITHUBS = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
OTHER = "0" * 64


def mac(data: bytes, key: bytes = KEY) -> str:
    return hmac.new(key, data, hashlib.sha256).hexdigest()


def check(style: str, headers: dict[str, Any], *, body: bytes = BODY, now: float = NOW, **fields: Any) -> bool:
    """Whether a request with these headers is let through."""
    rule = Signature(style=style, secret="S", **fields)
    lists = {name: [value] if isinstance(value, str) else value for name, value in headers.items()}
    try:
        read_claim(rule, lists, now).check(KEY, body)
    except SignatureWrong:
        return False
    return True


def test_the_example_of_github_is_valid() -> None:
    assert check("github", {"X-Hub-Signature-256": f"sha256={GITHUBS}"})


def test_a_header_has_signatures_and_characters_up_to_its_limits() -> None:
    signed = mac(f"{NOW}.".encode() + BODY)
    for count, is_good in ((8, True), (9, False)):
        given = ",".join([f"t={NOW}", *[f"v1={OTHER}"] * (count - 1), f"v1={signed}"])
        assert check("stripe", {"Stripe-Signature": given}) == is_good
    for length, is_good in ((1024, True), (1025, False)):
        given = f"sha256={GITHUBS}"
        assert check("github", {"X-Hub-Signature-256": given + " " * (length - len(given))}) == is_good


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": GITHUBS},
        {"X-Hub-Signature-256": f"sha1={GITHUBS}"},
        {"X-Hub-Signature-256": f"sha256={GITHUBS}0"},
        {"X-Hub-Signature-256": f"sha256={GITHUBS[:-1]}"},
        {"X-Hub-Signature-256": f"sha256={OTHER}"},
        {"X-Hub-Signature-256": f"sha256=é{GITHUBS[1:]}"},
        {"X-Hub-Signature-256": [f"sha256={GITHUBS}", f"sha256={OTHER}"]},
        {"X-Hub-Signature-256": [f"sha256={GITHUBS}"] * 2},
        {"X-Hub-Signature": f"sha256={GITHUBS}"},
        {"X-Hub-Signature-256": f"sha256={GITHUBS}" + " " * 2000},
    ],
    ids=str,
)
def test_anything_else_is_no_signature_of_github(headers: dict[str, Any]) -> None:
    assert not check("github", headers)


def test_a_signature_is_of_one_body_and_one_key() -> None:
    headers = {"X-Hub-Signature-256": f"sha256={GITHUBS}"}
    assert not check("github", headers, body=BODY + b"!")
    assert not check("github", headers, body=b"")
    assert not check("github", {"X-Hub-Signature-256": f"sha256={mac(BODY, b'other')}"})


def stripe(at: int = NOW, body: bytes = BODY, key: bytes = KEY) -> str:
    return mac(b"%d.%b" % (at, body), key)


@pytest.mark.parametrize(
    "value",
    [
        f"t={NOW},v1={stripe()}",
        f"v1={stripe()},t={NOW}",
        f"t={NOW}, v1={stripe()} ",
        f"t={NOW},v1={OTHER},v1={stripe()},v0={OTHER}",
        f"t={NOW},v1={stripe().upper()}",
    ],
)
def test_stripes_header_has_a_time_and_signatures_of_which_one_fits(value: str) -> None:
    assert check("stripe", {"Stripe-Signature": value})


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"t={NOW}",
        f"v1={stripe()}",
        f"t=,v1={stripe()}",
        f"t={NOW},v0={stripe()}",
        f"t={NOW},v1={mac(BODY)}",
        f"t={NOW + 1},v1={stripe()}",
        f"t={NOW},t={NOW},v1={stripe()}",
        f"t=+{NOW},v1={stripe()}",
        f"t={NOW}.0,v1={stripe()}",
        f"t=0{NOW},v1={stripe()}",
        f"t={'9' * 500},v1={stripe()}",
        f"t={NOW},v1={OTHER}" + f",v1={stripe()}" * 8,
    ],
)
def test_anything_else_is_no_signature_of_stripe(value: str) -> None:
    assert not check("stripe", {"Stripe-Signature": value})


@pytest.mark.parametrize("style", ["stripe", "generic"])
@pytest.mark.parametrize(
    ("late_s", "tolerance", "passes"),
    [(0, 1, True), (300, 300, True), (300.1, 300, False), (-300, 300, True), (-300.1, 300, False), (61, 60, False)],
)
def test_a_time_may_differ_by_the_tolerance_in_both_directions(
    style: str, late_s: float, tolerance: int, passes: bool
) -> None:
    headers = {
        "Stripe-Signature": f"t={NOW},v1={stripe()}",
        "X-Signature": stripe(),
        "X-Signature-Timestamp": str(NOW),
    }
    assert check(style, headers, now=NOW + late_s, tolerance=tolerance) == passes


def test_the_generic_style_has_its_time_in_a_header_of_its_own() -> None:
    time = {"X-Signature-Timestamp": str(NOW)}
    assert check("generic", {"X-Signature": stripe(), **time})
    assert check("generic", {"X-Signature": f"sha256={stripe()}", **time})
    assert not check("generic", {"X-Signature": stripe()})
    assert not check("generic", {"X-Signature": mac(BODY), **time})
    assert not check("generic", {"X-Signature": stripe(), "X-Signature-Timestamp": [str(NOW)] * 2})
    assert not check("generic", {"X-Signature": stripe(), "X-Signature-Timestamp": str(NOW - 1)})


def test_the_header_may_have_another_name() -> None:
    assert check("github", {"X-Gitea-Signature": f"sha256={GITHUBS}"}, header="x-GITEA-signature")
    assert not check("github", {"X-Hub-Signature-256": f"sha256={GITHUBS}"}, header="X-Gitea-Signature")
    named = {"X-My-Signature": stripe(), "X-My-Signature-Timestamp": str(NOW)}
    assert check("generic", named, header="X-My-Signature")


@given(st.sampled_from(["github", "stripe", "generic"]), st.text(max_size=80), st.text(max_size=20), st.binary())
def test_no_text_is_a_signature_by_chance_nor_an_error(style: str, value: str, time: str, body: bytes) -> None:
    names = ("X-Hub-Signature-256", "Stripe-Signature", "X-Signature")
    assert not check(style, {**dict.fromkeys(names, value), "X-Signature-Timestamp": time}, body=body)
