"""Nodes of a fleet, as they report themselves to the node that they belong to."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

#: Functions in one report; the containers of more are in their sum.
MOST_FUNCTIONS: Final = 500
STATES: Final = ("wait", "start", "idle", "busy")

_Text = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class FunctionContainers(msgspec.Struct, frozen=True, kw_only=True):
    """The containers of one function on a node, by state.

    Attributes:
        app: Name of the app.
        function: Path of the route, or name of the fn.
    """

    app: _Text
    function: Annotated[str, msgspec.Meta(max_length=1024)]
    wait: _Count = 0
    start: _Count = 0
    idle: _Count = 0
    busy: _Count = 0

    @property
    def total(self) -> int:
        """The number of containers."""
        return self.wait + self.start + self.idle + self.busy


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node as it reports itself.

    Attributes:
        id: Of the data folder, in lower case letters and digits.
        type: ``full``, ``api`` or ``runner``.
        host: Name of the machine.
        port: On which the node listens; 0 if it is not known.
        version: Of Hearth.
        driver: Of functions; ``none`` on an API node.
        started_at: RFC 3339.
        draining: Takes no async call, and is not ready.
        memory_mib: For containers.
        used_mib: Granted to containers.
        cpu_milli: For containers, in thousandths of a core.
        running: Calls that run.
        containers: Of all functions.
        functions: Those with the most containers.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z]{1,64}\Z")]
    type: Annotated[str, msgspec.Meta(pattern=r"^(full|api|runner)\Z")]
    host: _Text
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    version: _Text
    driver: _Text
    started_at: _Text
    draining: bool = False
    memory_mib: _Count = 0
    used_mib: _Count = 0
    cpu_milli: _Count = 0
    running: _Count = 0
    containers: _Count = 0
    functions: Annotated[list[FunctionContainers], msgspec.Meta(max_length=MOST_FUNCTIONS)] = []
