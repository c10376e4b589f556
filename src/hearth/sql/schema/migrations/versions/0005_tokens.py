"""Clients have tokens with roles; changes and refused requests are noted in an audit log."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    for table in shapes.access():
        table.drop(op.get_bind(), checkfirst=True)  # what an interrupted migration has left, on MySQL
        table.create(op.get_bind())


def downgrade() -> None:
    """Drop them: the tokens are lost."""
    for table in shapes.access():
        op.drop_table(table.name)
