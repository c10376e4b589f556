"""Apps, routes, calls, logs."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the four tables; MySQL may have some from a migration that was interrupted."""
    for table in shapes.first().values():
        table.create(op.get_bind(), checkfirst=True)
    shapes.add_index(op.get_bind(), "calls", "calls_by_path", "app_name", "path", "id")


def downgrade() -> None:
    """Drop them."""
    for table in ("logs", "calls", "routes", "apps"):
        op.drop_table(table)
