"""Lists of calls by time are ranges of ids; calls whose id tells another time are noted apart."""

from __future__ import annotations

from alembic import op

from hearth.sql import time_index
from hearth.sql.schema import shapes

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Note the calls that lie outside of the order of ids; the index by time is no longer needed."""
    noted = shapes.stray_calls()
    noted.drop(op.get_bind(), checkfirst=True)  # what an interrupted migration has left, on MySQL
    noted.create(op.get_bind())
    time_index.note_all(op.get_bind(), shapes.first()["calls"], noted)
    shapes.drop_index(op.get_bind(), "calls", "calls_by_time")


def downgrade() -> None:
    """Drop the notes, index the time."""
    op.drop_table("stray_calls")
    shapes.add_index(op.get_bind(), "calls", "calls_by_time", "app_name", "created_at", "id")
