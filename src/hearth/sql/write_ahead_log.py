"""SQLite's write-ahead log: it is copied into the database beside the commits, and stays short.

Left to itself, SQLite copies the log within a commit. That commit, and all who wait behind it, would wait for the disk.
So no connection that commits copies anything. Another one does, once the log is long or in a quiet moment, and then
empties the log, which takes a moment in which nobody writes or reads.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.models.errors import InternalError
from hearth.telemetry.logs import get_logger

#: Seconds between two looks at the log while something is written. If nothing was, the moment is quiet.
LOOK_S: Final = 1.0
#: Bytes of a log that is copied while others write. Most pages are written again and again, so fewer copies are less
#: work (a sixth of a lone call's processor time).
LONG_BYTES: Final = 16 << 20
#: Bytes of a log that is copied in a quiet moment.
WORTH_BYTES: Final = 4 << 20
#: Bytes of a log that is emptied even if others have to wait, and seconds that it may wait for readers meanwhile.
_TOO_LONG_BYTES: Final = 64 << 20
_HOLD_S: Final = 0.1
#: Copies in a row, each of what was written during the one before.
_COPIES: Final = 4

_log = get_logger(__name__)


class WriteAheadLog:
    """Keeps the log of one database short, while somebody tells it of writes.

    Args:
        name: The database, for log lines.
        run: Runs work with a connection of its own, in a thread of its own.
        clock: Tells when to look.

    Attributes:
        is_quiet: Nothing was written since the last look. Who writes sets this to false, and calls :meth:`watch` unless
            :attr:`is_watched`.
        is_watched: A look is due.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Callable[[sqlite3.Connection], None]], Coroutine[Any, Any, None]],
        clock: Clock,
    ) -> None:
        self._name = name
        self._run = run
        self._clock = clock
        self._look: asyncio.TimerHandle | None = None
        self._copying: asyncio.Task[None] | None = None
        self._background = Background()
        self._fails = False
        self.is_quiet = True
        self.is_watched = False

    async def close(self) -> None:
        """Look no more, and wait for a copy that runs."""
        if self._look is not None:
            self._look.cancel()
        await self._background.join()

    def watch(self) -> None:
        """Look at the log a second from now, and again until a second is quiet."""
        self.is_watched = True
        self._look = self._clock.call_at(self._clock.monotonic() + LOOK_S, self._look_now)

    def _look_now(self) -> None:
        if self._copying is not None and not self._copying.done():
            self.watch()
        elif self.is_quiet:
            self.is_watched = False
            self._copying = self._background.run(self._copy(WORTH_BYTES))
        else:
            self.is_quiet = True
            self._copying = self._background.run(self._copy(LONG_BYTES))
            self.watch()

    async def _copy(self, worth: int) -> None:
        """Copy a log of so many bytes. If that fails the log grows, and commits go on."""
        try:
            await self._run(lambda db: copy_back(db, worth))
        except (InternalError, OSError) as exc:
            if not self._fails:
                _log.error("write-ahead log grows: it cannot be copied", database=self._name, error=str(exc))
            self._fails = True
        else:
            if self._fails:
                _log.info("write-ahead log copied again", database=self._name)
            self._fails = False


def copy_back(db: sqlite3.Connection, worth: int) -> None:
    """Copy the log into the database and empty it, if it has so many bytes."""
    log = Path(f"{db.execute('PRAGMA database_list').fetchone()['file']}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size < worth:
        return
    for _ in range(_COPIES):
        _, pages, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if copied == pages:
            break
    # If somebody reads or writes at this very moment, the next look empties it.
    hold_s = _HOLD_S if size >= _TOO_LONG_BYTES else 0.0
    db.execute(f"PRAGMA busy_timeout = {round(hold_s * 1000)}")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
