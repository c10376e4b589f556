"""Writes many rows in one transaction, and swaps calls: what every call waits for, so that it has to be short."""

from __future__ import annotations

from hearth.sql.at_server import AtServer
from hearth.sql.in_thread import InThread
from hearth.sql.transactions import Transactions
from hearth.sql.writes import Batches


def batches(transactions: Transactions) -> Batches:
    """The quickest way to write to the database of these transactions."""
    if transactions.dialect == "sqlite":
        return InThread(str(transactions.engine.url.database))
    return AtServer(transactions)
