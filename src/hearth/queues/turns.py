"""The order in which the apps of a queue take turns (storage specification 7)."""

from __future__ import annotations

from collections.abc import Collection


class Turns:
    """Apps that may have messages to reserve, in rounds: each app has one turn in a round.

    An app that joins has its turn in the current round, unless it had one already. So the first message of an app is
    next when only apps that had their turn have a backlog. An app without messages stays until its next turn: else it
    could have several turns in a round by emptying and joining again.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._served: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Turns waiting={len(self._waiting)} served={len(self._served)}>"

    def copy(self) -> Turns:
        """Return the same turns, to change them apart."""
        turns = Turns()
        turns._waiting, turns._served = self._waiting.copy(), self._served.copy()
        return turns

    def join(self, app: str) -> None:
        """Add an app that has a message to reserve."""
        if app not in self._served:
            self._waiting[app] = None

    def line(self, without: Collection[str] = ()) -> list[str]:
        """Return the apps in the order of their next turns, except some."""
        return [app for apps in (self._waiting, self._served) for app in apps if app not in without]

    def next(self, without: Collection[str] = ()) -> str | None:
        """Return the app whose turn it is, of all except some; :meth:`served` or :meth:`leave` follows."""
        if (app := _first(self._waiting, without)) is not None:
            return app
        if (app := _first(self._served, without)) is not None:
            served, self._served = self._served, {}
            for one in served:
                (self._served if one in without else self._waiting)[one] = None
        return app

    def served(self, app: str) -> None:
        """Note that an app had its turn in this round."""
        del self._waiting[app]
        self._served[app] = None

    def leave(self, app: str) -> None:
        """Remove an app that has no message to reserve."""
        del self._waiting[app]


def _first(apps: dict[str, None], without: Collection[str]) -> str | None:
    return next((app for app in apps if app not in without), None)
