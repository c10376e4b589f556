"""Write functions for Hearth: a handler with annotations, and nothing else.

from hearth_fdk import Context, function

@function
def greet(ctx: Context, body: dict) -> dict:
    return {"message": f"Hello {body.get('name', 'World')}"}
"""

from __future__ import annotations

from hearth_fdk.context import Answer, BadInput, Context
from hearth_fdk.registry import function
from hearth_fdk.serving import run

__all__ = ["Answer", "BadInput", "Context", "function", "run"]
