"""Apps have quotas."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column."""
    for table, column, length in shapes.ADDED_BY_0009:
        shapes.add_text(op.get_bind(), table, column, length)


def downgrade() -> None:
    """Drop it: the quotas are lost."""
    for table, column, _ in shapes.ADDED_BY_0009:
        op.drop_column(table, column)
