"""The network of functions."""

from __future__ import annotations

import enum


class FunctionNetwork(enum.StrEnum):
    """The machines that functions can reach (FN_FUNCTION_NETWORK)."""

    NONE = "none"  # nothing
    INTERNET = "internet"  # other machines, but neither other functions nor the node
    HOST = "host"  # all that this machine reaches, its loopback included
