"""The store of versions as the rest of Hearth uses it."""

from __future__ import annotations

import abc

from hearth.models.version import Version


class VersionStore(abc.ABC):
    """The histories of functions: the last versions of each.

    They end with their function and with their app. A failure of the backend is a
    :class:`~hearth.models.errors.StoreUnavailable` with the cause chained.
    """

    @abc.abstractmethod
    async def add_version(self, version: Version) -> bool:
        """Store a version, and drop the oldest ones beyond the limit; return whether it differs from the last one.

        A version that is the same as the last one of its function is not stored again.
        """

    @abc.abstractmethod
    async def get_versions(self, app_name: str, function: str) -> list[Version]:
        """Return the versions of a function, newest first."""

    @abc.abstractmethod
    async def get_version_images(self) -> set[str]:
        """Return the images of all versions of all functions, with their digests as far as these are known."""
