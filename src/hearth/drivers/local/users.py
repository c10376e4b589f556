"""The users of the machine that functions run as, where the server runs as root: one for each app."""

from __future__ import annotations

import dataclasses


class NoUserLeft(Exception):
    """Every user of the range has running functions of another app."""


@dataclasses.dataclass(slots=True)
class _Lease:
    uid: int
    containers: int = 0


class FunctionUsers:
    """Lends users to apps. An app has the same one for as long as it has containers.

    Args:
        uids: The range to lend from.
        first: Where in the range to begin. Nodes of one machine begin in different places.
    """

    def __init__(self, uids: range, first: int = 0) -> None:
        self._uids = uids
        self._next = first % len(uids)
        self._leases: dict[str, _Lease] = {}
        self._lent: set[int] = set()

    def __repr__(self) -> str:
        return f"<FunctionUsers lent={len(self._lent)} of={len(self._uids)}>"

    def acquire(self, app: str) -> int:
        """Return the app's user, for one more container.

        Raises:
            NoUserLeft: The range is too small.
        """
        lease = self._leases.get(app)
        if lease is None:
            lease = self._leases[app] = _Lease(self._free())
            self._lent.add(lease.uid)
        lease.containers += 1
        return lease.uid

    def of(self, app: str) -> int:
        """Return the user of an app that has containers."""
        return self._leases[app].uid

    def release(self, app: str) -> int | None:
        """One container of the app is gone; return the user of the app if that was the last."""
        lease = self._leases[app]
        lease.containers -= 1
        if lease.containers:
            return None
        del self._leases[app]
        self._lent.remove(lease.uid)
        return lease.uid

    def _free(self) -> int:
        """Return a free user; the one that was released last comes last."""
        for _ in self._uids:
            uid = self._uids[self._next]
            self._next = (self._next + 1) % len(self._uids)
            if uid not in self._lent:
                return uid
        raise NoUserLeft
