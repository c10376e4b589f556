"""What the agent may rely on to find definitions and keep records; local and remote behave alike."""

from __future__ import annotations

import abc
import dataclasses

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.route import Route


@dataclasses.dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that reached a final status, with its log (at most the configured limit; already cut and marked)."""

    call: Call
    log: bytes


class DataAccess(abc.ABC):
    """Definitions and records.

    Errors are those of ``models.errors``: an :class:`~hearth.models.errors.ApiError` where a client is to see it, else
    an :class:`~hearth.models.errors.InternalError`. No backend's exception passes.
    """

    @abc.abstractmethod
    async def get_app(self, name: str) -> App:
        """The app.

        Raises:
            AppsNotFound: There is none.
        """

    @abc.abstractmethod
    async def get_route(self, app_name: str, path: str) -> Route:
        """The route; ``path`` is matched exactly.

        Raises:
            RoutesNotFound: There is none.
        """

    @abc.abstractmethod
    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs of ended calls in one transaction; a record that is there already is replaced."""
