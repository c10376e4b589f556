"""The right to delete an app, beyond the right to change it."""

from __future__ import annotations

from hearth.authorize.rules import Action, authorize
from hearth.models.app import App
from hearth.models.principal import Principal
from hearth.models.quotas import NO_QUOTAS


def check_removal(principal: Principal, app: App) -> None:
    """Check that a principal may delete an app: created again under its name, it would have no quotas.

    Raises:
        Forbidden: The app has quotas, and the principal may not set any.
    """
    if app.quotas != NO_QUOTAS:
        authorize(principal, Action.QUOTAS_WRITE)
