"""Routes say how many calls one container runs at once."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column."""
    for table, column, length in shapes.ADDED_BY_0010:
        shapes.add_text(op.get_bind(), table, column, length)


def downgrade() -> None:
    """Drop it: each container runs one call at a time."""
    for table, column, _ in shapes.ADDED_BY_0010:
        op.drop_column(table, column)
