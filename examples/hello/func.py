"""Greet the person named in the request body: {"name": "Ada"}."""

from hearth_fdk import function


@function
def greet(body: dict) -> dict:
    return {"message": f"Hello {body.get('name', 'World')}"}
