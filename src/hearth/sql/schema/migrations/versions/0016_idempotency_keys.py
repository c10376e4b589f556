"""Requests have idempotency keys, with which they do not run twice."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make the table."""
    shapes.idempotency_keys().create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop it: requests that are repeated run again."""
    shapes.idempotency_keys().drop(op.get_bind(), checkfirst=True)
