"""How a node is served."""

from __future__ import annotations

from typing import Any

from hearth import settings
from hearth.nodes.serving import server_config

#: Seconds for which widespread balancers keep an idle connection to a server, by default.
BALANCERS = {"HAProxy": 5, "nginx": 60, "AWS": 60}


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def test_an_idle_connection_is_kept_longer_than_balancers_keep_it() -> None:
    config = server_config(application, settings.load())
    assert config.timeout_keep_alive > max(BALANCERS.values())
