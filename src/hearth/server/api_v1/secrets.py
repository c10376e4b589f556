"""The secrets of an app: /v1/apps/:app/secrets. No answer contains a value."""

from __future__ import annotations

from typing import Any

from hearth.aio.clock import Clock
from hearth.models.registry_login import registry_of_login
from hearth.models.secret import validate_secret_name
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import secret_json
from hearth.server.api_v1.request import ApiRequest
from hearth.stores.secrets.vault import Vault


class Secrets:
    """The operations on secrets."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return the names, versions and times of all secrets of an app."""
        found = await self._vault.store.list_secrets(request.app)
        shown = [secret_json(secret) for secret in found if not registry_of_login(secret.name)]
        return {"message": "Successfully listed secrets", "secrets": shown}

    async def put(self, request: ApiRequest) -> dict[str, Any]:
        """Store a secret, or change its value."""
        validate_secret_name(request.secret)
        value = decode.secret_value(await request.body())
        stored = await self._vault.put(request.app, request.secret, value, self._clock.now())
        return {"message": "Secret successfully stored", "secret": secret_json(stored)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Delete a secret. Functions that name it cannot be called until it is stored again."""
        await self._vault.store.remove_secret(request.app, request.secret)
        return {"message": "Secret deleted"}
