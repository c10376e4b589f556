"""The login with which a registry is asked: that of an app, else that of the node."""

from __future__ import annotations

import asyncio

from hearth.drivers.base import PULL, FindLogin, ImageError, OutOfTime
from hearth.images.registry.credentials import Auth, Credentials
from hearth.models.errors import HearthError
from hearth.models.registry_login import RegistryLogin


class Logins:
    """Finds logins.

    Args:
        credentials: Those of the node.
        limit_s: Seconds for the search of an app's login.
    """

    def __init__(self, credentials: Credentials, limit_s: float) -> None:
        self._credentials = credentials
        self._limit_s = limit_s

    async def of_app(self, image: str, registry: str, find: FindLogin) -> RegistryLogin | None:
        """Return the login that an app has stored for a registry.

        Raises:
            ImageError: It cannot be read.
            OutOfTime: It was not found in time.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                return await find(registry)
        except TimeoutError as exc:
            raise OutOfTime(PULL, self._limit_s) from exc
        except HearthError as exc:  # a pull with the node's own login would hide what is wrong
            raise ImageError(image, f"the app's login at {registry} cannot be read") from exc

    async def auth(self, registry: str, login: RegistryLogin | None) -> Auth | None:
        """Return the credentials for a registry: those of an app, or of the node if the app has none."""
        if login is not None:
            return Auth(login.username, login.password)
        return await self._credentials.find(registry)
