"""How a node is served."""

from __future__ import annotations

from hearth.server.http.shared import KEEP_ALIVE_S

#: Seconds for which widespread balancers keep an idle connection to a server, by default.
BALANCERS = {"HAProxy": 5, "nginx": 60, "AWS": 60}


def test_an_idle_connection_is_kept_longer_than_balancers_keep_it() -> None:
    assert max(BALANCERS.values()) < KEEP_ALIVE_S
