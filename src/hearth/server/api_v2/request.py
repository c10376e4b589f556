"""A request as the handlers of API v2 see it."""

from __future__ import annotations

import dataclasses

from hearth.server.api_v1.request import ApiRequest


@dataclasses.dataclass(frozen=True, slots=True)
class FnRequest(ApiRequest):
    """A request with the ids in its path.

    Attributes:
        id: Of the app, the fn or the trigger that the path is about.
        source: The type and the source of a trigger.
        base: The beginning of the addresses at which clients call functions.
    """

    id: str = ""
    source: tuple[str, str] = ("", "")
    base: str = ""
