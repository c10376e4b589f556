"""URL scheme -> factory, imported only when used, open for plug-ins by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class UnknownScheme(LookupError):
    """No backend is registered for a URL's scheme; the first argument is the scheme."""


class Registry(Generic[T]):
    """The backends of one interface, by URL scheme.

    Args:
        group: Names the registry; also the entry-point group in which plug-ins register.
        builtin: Scheme to ``"module:factory"``; the module is imported when the scheme is first used.
    """

    def __init__(self, group: str, builtin: Mapping[str, str]) -> None:
        self._group = group
        self._builtin = dict(builtin)

    def factory(self, scheme: str) -> Callable[..., T]:
        """Return the factory of a scheme.

        Raises:
            UnknownScheme: Neither built in nor a plug-in.
        """
        if (target := self._builtin.get(scheme)) is not None:
            module, _, name = target.partition(":")
            factory: Callable[..., T] = getattr(importlib.import_module(module), name)
            return factory
        for entry in metadata.entry_points(group=self._group, name=scheme):
            loaded: Callable[..., T] = entry.load()
            return loaded
        raise UnknownScheme(scheme)

    def open(self, url: str, **options: Any) -> T:
        """Build the backend that ``url`` names.

        Raises:
            UnknownScheme: No backend has this scheme.
        """
        scheme = url.partition("://")[0]
        return self.factory(scheme)(url, **options)
