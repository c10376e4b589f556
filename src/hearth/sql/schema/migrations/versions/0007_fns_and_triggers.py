"""Apps have fns and triggers, and what today's Fn adds to an app."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables, add the columns, and index the ids of apps."""
    connection = op.get_bind()
    for added in shapes.fns():
        added.drop(connection, checkfirst=True)  # what an interrupted migration has left, on MySQL
        added.create(connection)
    for table, column, length in shapes.ADDED_BY_0007:
        shapes.add_text(connection, table, column, length)
    shapes.name_apps(connection)
    shapes.index_apps(connection)


def downgrade() -> None:
    """Drop them: fns and triggers are lost."""
    op.drop_index("apps_by_id", "apps")
    for table, column, _ in shapes.ADDED_BY_0007:
        op.drop_column(table, column)
    for added in shapes.fns():
        op.drop_table(added.name)
