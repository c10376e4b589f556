"""Routes, and apps for theirs, say which proof they ask of callers: a token or a signature."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns."""
    connection = op.get_bind()
    for table, column, length in shapes.ADDED_BY_0008:
        shapes.add_text(connection, table, column, length)


def downgrade() -> None:
    """Drop them: every route is open again."""
    for table, column, _ in shapes.ADDED_BY_0008:
        op.drop_column(table, column)
