"""The histories of functions: /v1/apps/:app/versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hearth.aio.clock import Clock
from hearth.models.fn import Fn
from hearth.models.image import Resolve, digest_of, unresolved
from hearth.models.principal import Principal
from hearth.models.route import Route
from hearth.models.times import format_time
from hearth.models.version import Version, hash_config
from hearth.server.api_v1.request import ApiRequest
from hearth.stores.datastore import Datastore


class Versions:
    """Notes versions of functions, and lists them.

    Args:
        next_id: Returns a new id.
        resolve: Returns the digest that a reference means on this node.
    """

    def __init__(
        self, datastore: Datastore, clock: Clock, next_id: Callable[[], str], resolve: Resolve = unresolved
    ) -> None:
        self._datastore = datastore
        self._clock = clock
        self._next_id = next_id
        self._resolve = resolve

    async def digest(self, image: str) -> str:
        """Return what an image that a request sets stands for; empty if nobody knows yet, or none is set.

        It is pinned then when a container has it.
        """
        return digest_of(image) or (await self._resolve(image) if image else "")

    async def note(self, principal: Principal, app_name: str, function: str, deployed: Route | Fn) -> None:
        """Add a version to the history of a function, unless it is the same as the last one.

        Args:
            principal: Who deployed it.
            app_name: The app.
            function: The path of a route, or the id of a fn.
            deployed: The function as it is now.
        """
        await self._datastore.add_version(
            Version(
                id=self._next_id(),
                app_name=app_name,
                function=function,
                image=deployed.image,
                digest=deployed.digest,
                config_hash=hash_config(deployed.config),
                principal=str(principal)[:_LONGEST],
                created_at=self._clock.now(),
            )
        )

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return the versions of a function, newest first: of a route by its path, of a fn by its id."""
        found = await self._datastore.get_versions(request.app, request.query("function"))
        if not found:
            await self._datastore.get_app(request.app)
        return {"message": "Successfully listed versions", "versions": [_version_json(version) for version in found]}


#: Characters of a principal that are stored.
_LONGEST = 200


def _version_json(version: Version) -> dict[str, Any]:
    return {
        "function": version.function,
        "image": version.image,
        "digest": version.digest,
        "config_hash": version.config_hash,
        "principal": version.principal,
        "created_at": format_time(version.created_at),
    }
