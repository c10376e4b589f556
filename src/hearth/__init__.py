"""Hearth: a container-native functions platform that speaks the Fn project's API."""

__version__ = "0.2.0"

#: The reference server version whose behaviour Hearth reproduces; reported by ``GET /version``.
FN_VERSION = "0.3.753"
