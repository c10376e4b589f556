"""Start-up errors that say which variable is meant, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hearth.models.errors import StartUpError, StoreUnavailable


@contextlib.contextmanager
def blamed(variable: str, advice: str) -> Iterator[None]:
    """Have what fails within name the variable that it comes from, and end with what to do.

    Args:
        variable: Of the environment.
        advice: For texts that have none of their own: nothing after a semicolon, no example of use.
    """
    try:
        yield
    except (StartUpError, StoreUnavailable) as exc:
        text = str(exc).rstrip(".")
        if variable not in text:
            text = f"{variable}: {text}"
        if not any(sign in text for sign in ("; ", " use ", " e.g. ", " begins with ")):
            text = f"{text}; {advice}"
        raise StartUpError(text) from exc
