"""Settings: where they come from, what is of no use, what nobody knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hearth import settings
from hearth.models.errors import StartUpError

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def variables() -> set[str]:
    return {str(field.validation_alias) for field in settings.Settings.model_fields.values()}


def documented() -> dict[str, str]:
    """The rows of the page: variables with their defaults."""
    text = DOCUMENT.read_text().partition("\n## Variables of Fn's server\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))


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
        ("FN_MAX_REQUEST_SIZE", "-1"),
        ("FN_MAX_REQUEST_SIZE", "1k"),
        ("FN_HEADER_TIMEOUT_S", "0"),
        ("FN_HEADER_TIMEOUT_S", "soon"),
        ("FN_MQ_VISIBILITY_S", "-1"),
        ("FN_MAX_TOTAL_MEMORY", "-1"),
        ("FN_MAX_TOTAL_CPU", "all"),
        ("FN_GRACE_S", "-1"),
        ("FN_IMAGE_REGISTRIES", "https://registry.example.com/shop,docker.io"),
        ("FN_IMAGE_REGISTRIES", "docker.io,-x"),
        ("FN_ZIPKIN_URL", "zipkin:9411"),
        ("FN_OTLP_URL", "http:collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317"),
    ],
)
def test_a_value_of_no_use_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartUpError, match=f"^{name}={value!r}: Input should be"):
        settings.load()


def test_functions_as_processes_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_DRIVER", "local")
    assert settings.load().driver == "process"


def test_registries_are_known_by_their_host() -> None:
    assert settings.load().registries_allowed == frozenset()
    found = settings.load(image_registries="index.docker.io, Registry.example.com:5000 localhost").registries_allowed
    assert found == {"docker.io", "registry.example.com:5000", "localhost"}


def test_a_password_in_an_address_of_no_use_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_ZIPKIN_URL", "me:s3cret@zipkin")
    with pytest.raises(StartUpError) as refused:
        settings.load()
    assert str(refused.value) == "FN_ZIPKIN_URL='***@zipkin': Input should begin with http:// or https://"


def test_the_page_lists_exactly_the_variables_that_exist() -> None:
    assert sorted(documented()) == sorted(variables())


def test_the_page_shows_the_defaults() -> None:
    shown = documented()
    differs = {}
    for field in settings.Settings.model_fields.values():
        name, default = str(field.validation_alias), field.default
        if isinstance(default, int | float | str) and default != "":  # others depend on the machine or other settings
            text = (
                str(default).lower()
                if isinstance(default, bool)
                else f"{default:g}"
                if type(default) is float
                else str(default)
            )
            if not shown[name].startswith(f"`{text}`"):
                differs[name] = (text, shown[name])
    assert differs == {}


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in settings.Settings.model_fields.items() if not field.description] == []


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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", None),
        ("127.0.0.1:8081", ("127.0.0.1", 8081)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("unix:/run/hearth/api.sock", Path("/run/hearth/api.sock")),
    ],
)
def test_the_api_is_given_an_address_with_a_port_or_a_socket(text: str, place: object) -> None:
    assert settings.load(admin_bind=text).admin_place == place


@pytest.mark.parametrize(
    "text", ["8081", ":8081", "127.0.0.1", "::1:8081", "a:65536", "a:-1", "unix:api.sock", "unix:"]
)
def test_an_address_of_the_api_without_its_parts_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FN_ADMIN_BIND", text)
    with pytest.raises(StartUpError, match=r"^FN_ADMIN_BIND=.*127\.0\.0\.1:8081"):
        settings.load()


def test_without_tokens_the_api_is_for_this_machine_wherever_calls_come_from() -> None:
    split = settings.load(bind="0.0.0.0", admin_bind="127.0.0.1:8081")
    assert (split.address, split.control_address) == ("0.0.0.0", "127.0.0.1")
    assert settings.load(bind="0.0.0.0", admin_bind="unix:/run/api.sock").control_address == "localhost"
    with pytest.raises(StartUpError, match=r"^FN_ADMIN_BIND=0\.0\.0\.0: others could control this node"):
        _ = settings.load(admin_bind="0.0.0.0:8081").admin_place
    with pytest.raises(StartUpError, match=r"^FN_BIND=0\.0\.0\.0: others could control this node"):
        _ = settings.load(bind="0.0.0.0").address
    assert settings.load(auth="required", admin_bind="0.0.0.0:8081").admin_place == ("0.0.0.0", 8081)
