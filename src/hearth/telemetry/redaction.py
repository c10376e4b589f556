"""Keeps secrets out of logs and messages: passwords within URLs, every secret of the settings, secrets of functions."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
#: Shorter secrets occur in harmless words. Passwords within URLs are found at any length.
_MIN_LENGTH: Final = 4
#: Values of functions' secrets that are looked for, and their characters together; the least recent are forgotten.
_MOST_VALUES: Final = 1000
_MOST_CHARACTERS: Final = 1 << 20
_CREDENTIALS: Final = re.compile(r"(://[^\s\"/@:]*):[^\s\"/@]+@")

_secrets: tuple[str, ...] = ()
_values: Final[OrderedDict[str, tuple[str, ...]]] = OrderedDict()
_forms: tuple[str, ...] | None = ()
_characters = 0


def hide(secrets: Iterable[str]) -> None:
    """Replace these texts in every log line and message from now on."""
    global _secrets
    known = {*_secrets, *[secret for secret in secrets if len(secret) >= _MIN_LENGTH]}
    escaped = {secret.replace("\\", "\\\\").replace('"', '\\"') for secret in known}
    _secrets = tuple(sorted(known | escaped, key=len, reverse=True))  # one may contain another


def hide_values(values: Iterable[str]) -> None:
    """Replace the values of functions' secrets in the platform's own log lines and messages from now on.

    What functions write themselves stays as it is.
    """
    global _forms, _characters
    for value in values:
        if len(value) < _MIN_LENGTH:
            continue
        if value in _values:
            _values.move_to_end(value)
            continue
        _values[value] = _shown(value)
        _forms = None
        _characters += len(value)
        while len(_values) > _MOST_VALUES or _characters > _MOST_CHARACTERS:
            _characters -= len(_values.popitem(last=False)[0])


def forget() -> None:
    """Hide nothing that was named before: for programs that start and end several nodes."""
    global _secrets, _forms, _characters
    _secrets, _forms, _characters = (), (), 0
    _values.clear()


def redact(text: str, *, by_function: bool = False) -> str:
    """Return the text without secrets.

    Args:
        text: The text.
        by_function: A function wrote it: it may show the values of its own secrets.
    """
    for secret in _secrets if by_function else (*_secrets, *_value_forms()):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return _CREDENTIALS.sub(rf"\1:{HIDDEN}@", text) if "@" in text else text


def _value_forms() -> tuple[str, ...]:
    """Return the forms in which values may occur, the longest first: one may contain another."""
    global _forms
    if _forms is None:
        _forms = tuple(sorted({form for forms in _values.values() for form in forms}, key=len, reverse=True))
    return _forms


def _shown(value: str) -> tuple[str, ...]:
    """Return a value as it is, as a log line shows it, and as Python does."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    lined = quoted.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return tuple(dict.fromkeys((value, quoted, lined, repr(value)[1:-1])))
