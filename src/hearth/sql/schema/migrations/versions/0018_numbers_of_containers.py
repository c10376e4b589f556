"""Routes say how many containers each node keeps ready and may have; functions that keep some ready are indexed."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns and the indexes. NULL and an empty text stand for no bound."""
    connection = op.get_bind()
    for table, column, length in shapes.ADDED_BY_0018:
        shapes.add_text(connection, table, column, length)
    for table in shapes.KEPT_READY:
        shapes.add_index(connection, table, shapes.ready_index(table), "min_instances")


def downgrade() -> None:
    """Drop them: containers start with calls alone, and there is any number of them."""
    connection = op.get_bind()
    for table in shapes.KEPT_READY:
        shapes.drop_index(connection, table, shapes.ready_index(table))
    for table, column, _ in shapes.ADDED_BY_0018:
        op.drop_column(table, column)
