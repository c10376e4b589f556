"""Registries outside, as the settings of a node open them."""

from __future__ import annotations

from hearth.aio.clock import Clock
from hearth.drivers.local.stored import image_store
from hearth.images.registry.credentials import Credentials
from hearth.images.registry.pull import Pulls
from hearth.settings import Settings


def credentials(settings: Settings) -> Credentials:
    """Return what finds the node's own credentials.

    Raises:
        StartUpError: ``DOCKER_AUTH`` is malformed.
    """
    return Credentials(settings.docker_auth.get_secret_value(), settings.docker_config_files)


def pulls(settings: Settings, clock: Clock) -> Pulls:
    """Return what pulls into the data folder, to be closed by the caller."""
    return Pulls(
        image_store(settings.bundles),
        credentials(settings),
        clock,
        most_bytes=settings.image_max_bytes,
        registries=settings.registries_allowed,
    )
