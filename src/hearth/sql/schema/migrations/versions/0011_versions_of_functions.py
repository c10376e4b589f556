"""Functions have a history of versions."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    table = shapes.versions()
    table.drop(op.get_bind(), checkfirst=True)  # what an interrupted migration has left, on MySQL
    table.create(op.get_bind())


def downgrade() -> None:
    """Drop it: the histories are lost."""
    op.drop_table("versions")
