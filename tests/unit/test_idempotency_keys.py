"""The form of idempotency keys, and what tells requests and keys apart."""

from __future__ import annotations

import pytest

from hearth.models.errors import IdempotencyKeyInvalid
from hearth.models.function import FunctionRef
from hearth.models.idempotency import MAX_KEY_LENGTH, checked_key, fingerprint, key_id

REF = FunctionRef(id="A/f", app_id="A", app_name="app", name="/f")


@pytest.mark.parametrize("key", ["k", "x" * MAX_KEY_LENGTH, '"8e03978e"', "a b/c", "Hearth/x", "~!"])
def test_a_key_of_printable_characters_is_taken_as_it_is(key: str) -> None:
    assert checked_key([key]) == key


@pytest.mark.parametrize("values", [[], [""], ["x" * (MAX_KEY_LENGTH + 1)], ["a\tb"], ["é"], ["a", "a"], ["a\x7f"]])
def test_other_keys_are_refused(values: list[str]) -> None:
    with pytest.raises(IdempotencyKeyInvalid, match="1 to 255 printable ASCII characters") as caught:
        checked_key(values)
    assert caught.value.code == 400


@pytest.mark.parametrize("key", ["hearth/", "hearth/schedules/x"])
def test_the_keys_of_the_platform_are_reserved(key: str) -> None:
    with pytest.raises(IdempotencyKeyInvalid, match="reserved"):
        checked_key([key])


def test_a_key_belongs_to_one_function_of_one_app() -> None:
    others = [
        FunctionRef(id="A/g", app_id="A", app_name="app", name="/g"),
        FunctionRef(id="B/f", app_id="B", app_name="app", name="/f"),
        FunctionRef(id="A/f", app_id="", app_name="A", name="/f"),
    ]
    assert len({key_id(ref, "k") for ref in (REF, *others)} | {key_id(REF, "l")}) == 5
    assert key_id(REF, "k") == key_id(REF, "k")


def test_a_request_is_its_method_its_body_and_whether_its_caller_waits() -> None:
    prints = {
        fingerprint(method, body, is_sync=is_sync)
        for method in ("POST", "PUT")
        for body in (b"", b"a", b"b")
        for is_sync in (True, False)
    }
    assert len(prints) == 12
