"""Lists of calls by app and by time come from an index; Fn's own note of the schema's version is kept."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the indexes, and the note where Fn did not write it."""
    shapes.add_index(op.get_bind(), "calls", "calls_by_app", "app_name", "id")
    shapes.add_index(op.get_bind(), "calls", "calls_by_time", "app_name", "created_at", "id")
    shapes.note_fn_version(op.get_bind(), shapes.FN_VERSION)


def downgrade() -> None:
    """Drop them."""
    op.drop_index("calls_by_time", "calls")
    op.drop_index("calls_by_app", "calls")
    op.drop_table("schema_migrations")
