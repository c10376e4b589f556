"""What the drivers of databases raise, in our words."""

from __future__ import annotations

import asyncpg
import pytest

from hearth.models.errors import StoreUnavailable
from hearth.sql.errors import failures, translated


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_a_connection_that_is_lost_is_a_store_that_is_away(error: Exception) -> None:
    assert isinstance(error, failures())
    assert type(translated(error)) is StoreUnavailable
