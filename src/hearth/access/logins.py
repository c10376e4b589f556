"""The logins that apps have stored for registries. They are looked up for a pull and kept by nobody."""

from __future__ import annotations

from typing import Final

import msgspec

from hearth.access.base import SecretSource
from hearth.models.errors import SecretGone, SecretUnreadable
from hearth.models.registry_login import RegistryLogin, name_of_login
from hearth.telemetry import redaction

_DECODER: Final = msgspec.json.Decoder(RegistryLogin)


class StoredLogins:
    """A :class:`~hearth.access.base.LoginSource` over the secrets of apps."""

    def __init__(self, secrets: SecretSource) -> None:
        self._secrets = secrets

    async def find(self, app_name: str, app_id: str, registry: str) -> RegistryLogin | None:
        """Return the login of an app.

        Raises:
            SecretUnreadable: It cannot be decrypted, or is damaged.
        """
        name = name_of_login(registry)
        try:
            text = (await self._secrets.values(app_name, app_id, (name,))).values[name]
            login = _DECODER.decode(text)
        except SecretGone:
            return None
        except msgspec.MsgspecError:  # neither it nor its cause is shown: they quote the text
            raise SecretUnreadable(app_name, name, "it is no login") from None
        redaction.hide_values([login.password])
        return login
