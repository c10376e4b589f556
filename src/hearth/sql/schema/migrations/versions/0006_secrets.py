"""Apps have secrets; apps and routes say which of them functions get."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table, unless an interrupted migration has, and add the columns."""
    connection = op.get_bind()
    shapes.secrets().create(connection, checkfirst=True)
    for table, column, length in shapes.ADDED_BY_0006:
        shapes.add_text(connection, table, column, length)


def downgrade() -> None:
    """Drop them: the secrets are lost."""
    for table, column, _ in shapes.ADDED_BY_0006:
        op.drop_column(table, column)
    op.drop_table("secrets")
