"""The dashboard of a node."""

from __future__ import annotations

import asyncio
import dataclasses

from hearth.agent.agent import Agent
from hearth.nodes.foundation import Foundation
from hearth.server.ui.assets import assets
from hearth.server.ui.data import Data
from hearth.server.ui.recent import Recent
from hearth.stores.datastore import Datastore


@dataclasses.dataclass(frozen=True, slots=True)
class Dashboard:
    """The parts of the dashboard that live as long as the node."""

    data: Data
    recent: Recent


def data_of(dashboard: Dashboard | None) -> Data | None:
    """Return what answers the requests of a dashboard, if there is one."""
    return None if dashboard is None else dashboard.data


async def open_dashboard(
    base: Foundation, datastore: Datastore, node_type: str, driver: str, agent: Agent | None = None
) -> Dashboard | None:
    """Start to watch the node for its dashboard; ``None`` if the settings switch it off."""
    if not base.settings.dashboard:
        return None
    await asyncio.to_thread(assets)  # read from the disk once
    metrics = base.telemetry.metrics
    if agent is None:
        recent = Recent(metrics, base.clock)
    else:
        resources = agent.pool.resources
        recent = Recent(metrics, base.clock, lambda: resources.used, resources.total)
    await base.stack.enter_async_context(recent)
    about = {
        "type": node_type,
        "driver": driver,
        "auth": base.settings.auth.value,
        "runs_calls": agent is not None,
        "call_auth": base.settings.call_auth,
    }
    return Dashboard(Data(datastore, recent, base.clock, about), recent)
