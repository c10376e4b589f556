"""Settings: where they come from, what is of no use, what nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth import settings
from hearth.models.errors import StartUpError

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def variables() -> set[str]:
    return {str(field.validation_alias) for field in settings.Settings.model_fields.values()}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests."""
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def test_code_beats_the_environment_and_that_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load().port == 8080
    monkeypatch.setenv("FN_PORT", "1")
    assert settings.load().port == 1
    assert settings.load(port=2).port == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FN_PORT", "no"),
        ("FN_PORT", ""),
        ("FN_PORT", "65536"),
        ("FN_PORT", "80.5"),
        ("FN_DRIVER", "magic"),
        ("FN_MAX_REQUEST_SIZE", "0"),
        ("FN_MAX_REQUEST_SIZE", "1k"),
        ("FN_HEADER_TIMEOUT_S", "0"),
        ("FN_HEADER_TIMEOUT_S", "soon"),
        ("FN_MQ_VISIBILITY_S", "-1"),
        ("FN_MAX_TOTAL_MEMORY", "-1"),
        ("FN_MAX_TOTAL_CPU", "all"),
        ("FN_GRACE_S", "-1"),
        ("FN_ZIPKIN_URL", "zipkin:9411"),
        ("FN_OTLP_URL", "http:collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317"),
    ],
)
def test_a_value_of_no_use_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartUpError, match=f"^{name}={value!r}: Input should be"):
        settings.load()


def test_a_password_in_an_address_of_no_use_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_ZIPKIN_URL", "me:s3cret@zipkin")
    with pytest.raises(StartUpError) as refused:
        settings.load()
    assert str(refused.value) == "FN_ZIPKIN_URL='***@zipkin': Input should begin with http:// or https://"


def test_every_variable_is_documented() -> None:
    text = DOCUMENT.read_text()
    assert [name for name in sorted(variables()) if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    ("name", "similar"),
    [("FN_PROT", "FN_PORT"), ("FN_MAX_TOTAL_MEM", "FN_MAX_TOTAL_MEMORY"), ("FN_XYZZY", "")],
)
def test_an_unknown_variable_is_named_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, similar: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert settings.unknown_variables()[name] == similar


def test_what_is_for_clients_or_for_others_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FN_PORT", "FN_API_URL", "FN_REGISTRY", "FN_TOKEN", "HOME"):
        monkeypatch.setenv(name, "1")
        assert name not in settings.unknown_variables()
