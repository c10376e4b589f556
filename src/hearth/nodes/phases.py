"""The time limits of a container's phases, by the settings."""

from __future__ import annotations

from hearth.drivers.base import PhaseLimits
from hearth.settings import Settings


def phase_limits(settings: Settings) -> PhaseLimits:
    """Return the limits that the drivers of a node keep."""
    return PhaseLimits(pull_s=settings.hot_pull_timeout_msecs / 1000, ready_s=settings.hot_start_timeout_msecs / 1000)
