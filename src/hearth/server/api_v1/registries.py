"""The logins of an app at registries: /v1/apps/:app/registries. No answer contains one."""

from __future__ import annotations

from typing import Any

import msgspec

from hearth.aio.clock import Clock
from hearth.models.errors import RegistriesNotFound, SecretsNotFound
from hearth.models.registry_login import name_of_login, registry_of_login, valid_registry
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import login_json
from hearth.server.api_v1.request import ApiRequest
from hearth.stores.secrets.vault import Vault
from hearth.telemetry import redaction


class Registries:
    """The operations on logins. They are secrets of the app that no function gets."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return the registries, versions and times of all logins of an app."""
        found = await self._vault.store.list_secrets(request.app)
        logins = [login_json(secret) for secret in found if registry_of_login(secret.name)]
        return {"message": "Successfully listed registries", "registries": logins}

    async def put(self, request: ApiRequest) -> dict[str, Any]:
        """Store a login, or change it."""
        name = name_of_login(valid_registry(request.registry))
        login = decode.registry_login(await request.body())
        redaction.hide_values([login.password])
        value = msgspec.json.encode(login).decode()
        stored = await self._vault.put(request.app, name, value, self._clock.now())
        return {"message": "Registry login successfully stored", "registry": login_json(stored)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Delete a login. Images that were pulled with it stay."""
        name = name_of_login(valid_registry(request.registry))
        try:
            await self._vault.store.remove_secret(request.app, name)
        except SecretsNotFound:
            raise RegistriesNotFound from None
        return {"message": "Registry login deleted"}
