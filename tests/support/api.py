"""What the tests of the API share."""

from __future__ import annotations

import httpx

APPS = "/v1/apps"
ROUTES = "/v1/apps/myapp/routes"


def message(answer: httpx.Response) -> str:
    """The text of an error."""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return str(answer.json()["error"]["message"])


async def make(api: httpx.AsyncClient, path: str = "/myroute", **fields: object) -> dict[str, object]:
    """Make a route; the route as it was answered."""
    answer = await api.post(ROUTES, json={"route": {"path": path, "image": "fnproject/hello", **fields}})
    assert answer.status_code == 200, answer.text
    route: dict[str, object] = answer.json()["route"]
    return route
