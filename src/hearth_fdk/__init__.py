"""Write functions for Hearth: a handler with annotations, and nothing else.

from hearth_fdk import Context, function

@function
def greet(ctx: Context, body: dict) -> dict:
    return {"message": f"Hello {body.get('name', 'World')}"}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hearth_fdk.context import Answer, BadInput, Context
from hearth_fdk.registry import function

if TYPE_CHECKING:
    from hearth_fdk.events import Event, sse
    from hearth_fdk.serving import run
    from hearth_fdk.signatures import is_signed

#: The version of the kit is that of Hearth: ``hearth build`` adds the kit that it was released with.
__version__ = "0.2.0"

__all__ = ["Answer", "BadInput", "Context", "Event", "function", "is_signed", "run", "sse"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: a program that does not use it starts without it."""
    if name == "run":
        from hearth_fdk.serving import run

        return run
    if name in ("Event", "sse"):
        from hearth_fdk import events

        return getattr(events, name)
    if name == "is_signed":
        from hearth_fdk.signatures import is_signed

        return is_signed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
