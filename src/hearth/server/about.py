"""Headers of ``/version`` that describe the server; the body is exactly Fn's."""

from __future__ import annotations

import dataclasses
from typing import Final

from hearth import __version__

DRIVER: Final = "Hearth-Driver"
NODE: Final = "Hearth-Node"


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """The description of a node.

    Attributes:
        driver: The driver of its functions, or of those of its runners; empty if unknown.
        node: The node's type.
    """

    driver: str = ""
    node: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers for clients that may see them."""
        known = {DRIVER: self.driver, NODE: self.node}
        return {"Hearth-Version": __version__, **{name: value for name, value in known.items() if value}}
