"""Why a survivor is no gap in the tests, by module, function and change."""

from __future__ import annotations

EXPLAINED: dict[tuple[str, str, str], str] = {}
