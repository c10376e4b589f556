"""What must not be read in any log: passwords within URLs, and every secret of the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
#: Shorter ones occur in harmless words; within a URL they are found all the same.
_MIN_LENGTH: Final = 4
_CREDENTIALS: Final = re.compile(r"(://[^\s\"/@:]*):[^\s\"/@]+@")

_secrets: tuple[str, ...] = ()


def hide(secrets: Iterable[str]) -> None:
    """From now on these texts are not to be read in any log."""
    global _secrets
    known = {*_secrets, *[secret for secret in secrets if len(secret) >= _MIN_LENGTH]}
    escaped = {secret.replace("\\", "\\\\").replace('"', '\\"') for secret in known}
    _secrets = tuple(sorted(known | escaped, key=len, reverse=True))  # one may hold another


def redact(text: str) -> str:
    """The text without them."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return _CREDENTIALS.sub(rf"\1:{HIDDEN}@", text) if "@" in text else text
