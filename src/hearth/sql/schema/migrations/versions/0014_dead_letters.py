"""Async calls that failed are kept with their payloads."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the table."""
    shapes.dead_letters().create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop it: the dead letters are lost."""
    shapes.dead_letters().drop(op.get_bind(), checkfirst=True)
