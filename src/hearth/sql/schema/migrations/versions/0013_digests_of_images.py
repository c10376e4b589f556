"""Routes and fns store what their images stand for."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the columns. They are NULL for functions that no node has looked at yet."""
    for table, column, length in shapes.ADDED_BY_0013:
        shapes.add_text(op.get_bind(), table, column, length)


def downgrade() -> None:
    """Drop them: the tags are followed again."""
    for table, column, _ in shapes.ADDED_BY_0013:
        op.drop_column(table, column)
