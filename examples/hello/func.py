"""Greets whoever is named in the request's body: {"name": "Ada"}."""

from hearth_fdk import function


@function
def greet(body: dict) -> dict:
    return {"message": f"Hello {body.get('name', 'World')}"}
