"""Requests that come from functions: they may call functions, and nothing else.

A function in Docker reaches the node by the address of its network's gateway. The control API does not answer it: it
would let one app read and change all others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.models.addresses import IPNetwork, unmapped
from hearth.models.errors import FunctionPeer
from hearth.server import errors
from hearth.server.http.shared import CALLS


class RefuseFunctions:
    """Answers 403 to requests from functions' networks that are not function calls.

    Args:
        subnets: The networks of functions, as they are now.
    """

    def __init__(self, app: ASGIApp, subnets: Callable[[], Sequence[IPNetwork]]) -> None:
        self._app = app
        self._subnets = subnets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._app
        if scope["type"] == "http" and not scope["path"].startswith(CALLS) and self._is_function(scope):
            app = errors.response(FunctionPeer(), scope["path"])
        await app(scope, receive, send)

    def _is_function(self, scope: Scope) -> bool:
        client = scope.get("client")
        if not client or not (subnets := self._subnets()):
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:  # a unix socket has no address
            return False
        return any(unmapped(address) in subnet for subnet in subnets)
