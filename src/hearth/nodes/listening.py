"""The listeners of a node: for function calls, for the API, or for both."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

from hearth.models.errors import StartUpError
from hearth.nodes.ports import listen, own_url
from hearth.nodes.unix_socket import unix_listener
from hearth.settings import Settings


@dataclasses.dataclass(frozen=True, slots=True)
class Listener:
    """A socket that a node listens on.

    Attributes:
        url: Where clients on this machine find it; ``unix:/path`` for a Unix socket.
        serves_control: It serves the API, metrics and documentation; otherwise only what needs no token.
        has_tls: Connections begin with a handshake. A Unix socket has none: nobody is on the way.
        is_admin: It is the one of ``FN_ADMIN_BIND``.
    """

    socket: socket.socket
    url: str
    serves_control: bool = True
    has_tls: bool = False
    is_admin: bool = False


@contextlib.contextmanager
def open_listeners(settings: Settings, of_calls: Listener | None = None) -> Iterator[list[Listener]]:
    """Listen on everything that the settings name. The first listener is that of function calls.

    Args:
        settings: The settings of the node.
        of_calls: The listener of function calls, if it is open; then it is not among those that are returned.

    Raises:
        StartUpError: A port or a path is in use or not available.
    """
    place = settings.admin_place
    mode = int(settings.socket_mode, 8)
    has_tls = settings.tls_cert is not None
    with contextlib.ExitStack() as stack:

        def on_port(name: str, address: str, port: int, *, serves_control: bool) -> Listener:
            made = stack.enter_context(listen(address, port, of=name))
            url = own_url(address, made.getsockname()[1], "https" if has_tls else "http")
            return Listener(made, url, serves_control, has_tls=has_tls, is_admin=name == "FN_ADMIN_BIND")

        def on_path(path: Path) -> Listener:
            return Listener(stack.enter_context(unix_listener(path, mode)), f"unix:{path}")

        found = []
        if of_calls is None:
            found.append(on_port("FN_BIND", settings.address, settings.port, serves_control=place is None))
        if isinstance(place, tuple):
            found.append(on_port("FN_ADMIN_BIND", *place, serves_control=True))
        elif place is not None:
            found.append(on_path(place))
        if settings.socket:
            if Path(settings.socket) == place:
                raise StartUpError(f"FN_SOCKET={place}: the same as FN_ADMIN_BIND; unset FN_SOCKET")
            found.append(on_path(Path(settings.socket)))
        yield found
