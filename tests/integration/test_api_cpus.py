"""A limit of CPU that nobody would enforce is refused where it is asked for."""

from __future__ import annotations

import httpx
from tests.support.api import ROUTES, make, message

from hearth.aio.clock import SystemClock
from hearth.models.route import RouteLimits
from hearth.server.api import Api
from hearth.stores.sql import SqlDatastore

NO_CPUS = "This node cannot limit the CPU of functions"


async def test_a_limit_that_nobody_would_enforce_is_refused(datastore: SqlDatastore) -> None:
    limits = {True: RouteLimits(), False: RouteLimits(no_cpus=NO_CPUS)}
    clients = {}
    for limits_cpu in limits:
        app = Api(datastore, SystemClock(), dict, limits=limits[limits_cpu])
        clients[limits_cpu] = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")
    async with clients[True] as before, clients[False] as api:
        refused = await api.post(ROUTES, json={"route": {"path": "/a", "image": "i", "cpus": "50m"}})
        assert refused.status_code == 400
        assert message(refused) == f"Cpus is invalid. {NO_CPUS}"
        await make(before, "/a", cpus="50m")
        assert (await api.patch(f"{ROUTES}/a", json={"route": {"cpus": "60m"}})).status_code == 400
        kept = await api.patch(f"{ROUTES}/a", json={"route": {"memory": 256}})
        assert kept.json()["route"]["cpus"] == "50m", "a limit of earlier does not keep the route from changing"
