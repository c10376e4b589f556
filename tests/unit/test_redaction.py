"""Values of secrets in log lines and messages."""

from __future__ import annotations

from typing import Any

import pytest

from hearth.telemetry import logs, redaction


def test_values_are_hidden_in_messages_of_the_platform() -> None:
    redaction.hide_values(["sesam-öffne", "sesam-öffne-dich"])
    assert redaction.redact("a sesam-öffne-dich b sesam-öffne c") == "a *** b *** c"


@pytest.mark.parametrize("value", ["line\none", 'quo"ted', "back\\slash", "tab\there", "it's"])
def test_values_are_hidden_in_the_form_of_a_log_line_and_of_python(value: str) -> None:
    redaction.hide_values([value])
    line = logs.without_secrets(logs.render_logfmt)(None, "", {"event": "failed", "level": "info", "error": value})
    assert line.endswith('error="***"')
    assert redaction.redact(f"bad value {value!r}").count("***") == 1


def test_what_a_function_writes_stays_as_it_is() -> None:
    redaction.hide_values(["sesam-öffne"])
    redaction.hide(["platform-token"])
    line: dict[str, Any] = {"event": "sesam-öffne platform-token", "level": "info"}
    render = logs.without_secrets(logs.render_logfmt)
    assert "sesam" not in render(None, "", dict(line))
    for mark in ("user_log", "between_log"):
        shown = render(None, "", {**line, mark: True})
        assert "sesam-öffne" in shown
        assert "platform-token" not in shown


def test_short_values_do_not_spoil_messages() -> None:
    redaction.hide_values(["a", "no", "yes"])
    assert redaction.redact("a yes and a no") == "a yes and a no"


def test_the_values_that_are_hidden_are_bounded() -> None:
    redaction.hide_values(["kept-value"])
    for number in range(2000):
        redaction.hide_values([f"value-{number:06}", "kept-value"])
    assert redaction.redact("kept-value value-001999 value-000001") == "*** *** value-000001"
    redaction.hide_values(["x" * (1 << 20)])
    redaction.hide_values(["last-value"])
    assert redaction.redact("last-value") == "***"


def test_what_ends_may_take_its_secrets_with_it() -> None:
    redaction.hide(["platform-token"])
    redaction.hide_values(["sesam-öffne"])
    redaction.forget()
    assert redaction.redact("platform-token sesam-öffne") == "platform-token sesam-öffne"
    redaction.hide_values(["x" * (1 << 20), "sesam-öffne"])
    assert redaction.redact("sesam-öffne") == "***"
