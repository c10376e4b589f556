"""What a server tells of itself beside its version, as headers of ``/version``: its body is Fn's to the letter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from starlette.requests import Request

from hearth import __version__

DRIVER: Final = "Hearth-Driver"
BUNDLES: Final = "Hearth-Bundles"
_HERE: Final = ("127.", "::1", "::ffff:127.")


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """What runs its functions, and where its bundles are. A node without functions has neither."""

    driver: str = ""
    bundles: Path | None = None

    def headers(self, request: Request) -> dict[str, str]:
        """For the one who asks: where bundles are is of use, and told, only on the same machine."""
        told = {"Hearth-Version": __version__}
        if self.driver:
            told[DRIVER] = self.driver
            if self.driver == "process" and self.bundles is not None and _is_here(request):
                told[BUNDLES] = str(self.bundles)
        return told


def _is_here(request: Request) -> bool:
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via"))
    return request.client is not None and request.client.host.startswith(_HERE) and not forwarded
