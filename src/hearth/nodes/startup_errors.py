"""Start-up errors that name the variable they come from, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from hearth.models.errors import StartUpError, StoreUnavailable

#: Variable and advice of each store.
DATABASE: Final = ("FN_DB_URL", "start the database, or name another one: sqlite3://, postgres:// or mysql://")
QUEUE: Final = ("FN_MQ_URL", "start the queue, or name another one: bolt://, redis:// or memory://")
LOG_STORE: Final = ("FN_LOGSTORE_URL", "start the log store, or name another one: s3:// or a database")
_FILES: Final = ("sqlite3://", "bolt://")
_ADVICE_ON_FILES: Final = "see that this user can write to the file, and that its disk has room"


class NamedStartUpError(StartUpError):
    """A start-up error whose message names its variable."""


@contextlib.contextmanager
def named_errors(variable: str, advice: str, url: str = "") -> Iterator[None]:
    """Raise errors again with the variable that they come from and with what to do.

    Args:
        variable: The environment variable.
        advice: Added to messages without advice: no text after a semicolon, no example.
        url: The URL of a store; a store that is a file cannot be started.

    Raises:
        NamedStartUpError: The code within raised a start-up error or found no store.
    """
    if url.startswith(_FILES):
        advice = ", or ".join([_ADVICE_ON_FILES, advice.partition(", or ")[2]])
    try:
        yield
    except NamedStartUpError:
        raise
    except (StartUpError, StoreUnavailable) as exc:
        text = str(exc).rstrip(".")
        if variable not in text:
            text = f"{variable}: {text}"
        if not any(sign in text for sign in ("; ", " use ", " e.g. ", " begins with ")):
            text = f"{text}; {advice}"
        raise NamedStartUpError(text) from exc
