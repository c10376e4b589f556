"""Apps have an identity, and calls note the one that they belong to; calls note the status of their answer."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, an id for each app, and the index by status."""
    connection = op.get_bind()
    for table, column, length in shapes.ADDED_BY_0004:
        shapes.add_text(connection, table, column, length)
    shapes.name_apps(connection)
    where = "" if connection.dialect.name == "mysql" else " WHERE status <> 'success'"
    shapes.add_index(connection, "calls", "calls_by_status", "app_name", "status", "id", where=where)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("calls_by_status", "calls")
    for table, column, _ in shapes.ADDED_BY_0004:
        op.drop_column(table, column)
