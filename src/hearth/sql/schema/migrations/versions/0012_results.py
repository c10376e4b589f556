"""Async calls keep their results, and what is to be known of their delivery."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns and the table."""
    connection = op.get_bind()
    for table, column, length in shapes.ADDED_BY_0012:
        shapes.add_text(connection, table, column, length)
    shapes.results().create(connection, checkfirst=True)


def downgrade() -> None:
    """Drop them: the results are lost."""
    shapes.results().drop(op.get_bind(), checkfirst=True)
    for table, column, _ in shapes.ADDED_BY_0012:
        op.drop_column(table, column)
