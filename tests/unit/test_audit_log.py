"""How many refused requests the audit log takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from tests.support.clock import FakeClock

from hearth.models.audit import AuditEvent
from hearth.models.ids import IdGenerator
from hearth.models.principal import ANONYMOUS
from hearth.server.audit import AuditLog
from hearth.stores.audit.base import AuditStore


class Store:
    """Collects events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    async def add_events(self, events: Sequence[AuditEvent]) -> None:
        self.events += events


async def test_refused_requests_from_many_addresses_leave_a_bounded_number_of_events() -> None:
    store, clock = Store(), FakeClock()
    audit = AuditLog(cast(AuditStore, store), clock, IdGenerator(0, clock.now_ms))
    for number in range(3_000):
        scope: dict[str, Any] = {"method": "GET", "path": "/", "client": (f"2001:db8:{number:x}::1", 1)}
        audit.refused(scope, ANONYMOUS, "unknown", "", 401)
        await asyncio.sleep(0)
    await audit.close()
    clock.advance(10)
    scope["client"] = ("192.0.2.1", 1)
    for _ in range(15):
        audit.refused(scope, ANONYMOUS, "unknown", "", 401)
    await audit.close()
    assert len(store.events) == 1_010
