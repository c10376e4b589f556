"""The order in which the apps of a queue take turns (storage specification 7)."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Turns:
    """Apps that may have messages to reserve, in rounds: each app has as many turns in a round as its weight says.

    First each app has one turn, then those that have more of them have theirs. An app that joins has its turns in the
    current round, unless it had one already. So the first message of an app is next when only apps that had a turn have
    a backlog. An app without messages stays until its next turn: else it could have more turns in a round by emptying
    and joining again.

    Attributes:
        weights: Turns in a round; one for an app that is not in it.
    """

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self._waiting: dict[str, None] = {}
        self._again: dict[str, int] = {}  # those that had some of their turns, with the number
        self._served: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Turns waiting={len(self._waiting)} again={len(self._again)} served={len(self._served)}>"

    def copy(self) -> Turns:
        """Return the same turns, to change them apart."""
        turns = Turns()
        turns.weights = self.weights
        turns._waiting, turns._again, turns._served = self._waiting.copy(), self._again.copy(), self._served.copy()
        return turns

    def join(self, app: str) -> None:
        """Add an app that has a message to reserve."""
        if app not in self._served and app not in self._again:
            self._waiting[app] = None

    def line(self, without: Collection[str] = ()) -> list[str]:
        """Return the apps in the order of their next turns, except some."""
        return [app for apps in (self._waiting, self._again, self._served) for app in apps if app not in without]

    def next(self, without: Collection[str] = ()) -> str | None:
        """Return the app whose turn it is, of all except some; :meth:`served` or :meth:`leave` follows."""
        for apps in (self._waiting, self._again):
            if (app := _first(apps, without)) is not None:
                return app
        if (app := _first(self._served, without)) is not None:
            served, self._served = self._served, {}
            for one in served:
                (self._served if one in without else self._waiting)[one] = None
        return app

    def served(self, app: str) -> None:
        """Note that an app had a turn."""
        had = self._again.pop(app, 0) + 1
        self._waiting.pop(app, None)
        if had < self.weights.get(app, 1):
            self._again[app] = had
        else:
            self._served[app] = None

    def leave(self, app: str) -> None:
        """Remove an app that has no message to reserve; one that had a turn in this round stays until the next one."""
        if self._again.pop(app, None) is None:
            del self._waiting[app]
        else:
            self._served[app] = None


def _first(apps: Iterable[str], without: Collection[str]) -> str | None:
    return next((app for app in apps if app not in without), None)
