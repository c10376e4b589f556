"""Writes to a database server.

There the time goes into messages, and the node's into SQLAlchemy's share of each. So a batch is one message that is a
transaction of its own, on a connection that is kept, and handed to the driver. A swap has to read before it writes, and
takes its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hearth.sql import upsert
from hearth.sql.failures import Conflict, failures, is_duplicate
from hearth.sql.kept import KeptConnections
from hearth.sql.query import Question
from hearth.sql.questions import MESSAGES, QUESTIONS
from hearth.sql.tables import calls
from hearth.sql.transactions import Transactions, repeated
from hearth.sql.writes import Decide, Stored, Swap, Writes, fresh, without


class AtServer:
    """PostgreSQL, MySQL or MariaDB."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._messages = MESSAGES[transactions.dialect](transactions.engine.dialect)
        self._questions = QUESTIONS[transactions.dialect](transactions.engine.dialect, self._messages)
        self._kept = KeptConnections(transactions.engine, self._messages.ping)
        self._add = upsert.adding(transactions.dialect, calls)
        self._replace = upsert.replacing(transactions.dialect, calls)

    @repeated
    async def write(self, writes: Writes) -> None:
        """Write in one transaction."""
        writes = [(statement, rows) for statement, rows in writes if rows]
        if not writes:
            return
        async with self._transactions.limited(), self._kept.one() as connection:
            await self._messages.send(connection, writes)

    @repeated
    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        """Swap and write in one transaction."""
        async with self._transactions.writing() as db:
            stored = await self._locked(db, [row["id"] for row in swap.records])
            if missing := [row for row in swap.records if row["id"] not in stored]:
                # A row that is not there cannot be held, so it is made first; then whoever comes later has to wait.
                made = min(swap.over)
                await db.execute(self._add, [{**row, "status": made} for row in missing])
                stored |= await self._locked(db, [row["id"] for row in missing])
            kept = {call_id: found for call_id, found in stored.items() if found.status not in swap.over}
            replacing = [(self._replace, without(kept, swap.records)), *fresh(kept, swap.also)]
            for statement, rows in (*replacing, *writes):
                if rows:
                    await db.execute(statement, rows)
        return kept

    @repeated
    async def change(self, questions: Sequence[Question], decide: Decide) -> None:
        """Ask, decide and do it in one transaction."""
        async with self._transactions.limited(), self._kept.one() as connection:
            await self._questions.begin(connection)
            changes = decide([await self._questions.ask_within(connection, question) for question in questions])
            try:
                await self._questions.end(connection, changes.removals, [one for one in changes.writes if one[1]])
            except failures() as exc:
                if is_duplicate(exc):  # what nobody had made when it was looked for, somebody has made meanwhile
                    raise Conflict("database: a row was made by another transaction") from exc
                raise

    @staticmethod
    async def _locked(db: AsyncConnection, ids: list[str]) -> dict[str, Stored]:
        query = sa.select(calls.c.id, calls.c.status, calls.c.completed_at).where(calls.c.id.in_(ids))
        found = await db.execute(query.order_by(calls.c.id).with_for_update())
        return {row.id: Stored(row.status, row.completed_at) for row in found}

    async def close(self) -> None:
        """Give the connections back."""
        await self._kept.close()
