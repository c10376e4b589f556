"""Apps have schedules."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the tables, unless an interrupted migration has."""
    for table in shapes.schedules():
        table.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop them: the schedules are lost."""
    for table in shapes.schedules():
        table.drop(op.get_bind(), checkfirst=True)
