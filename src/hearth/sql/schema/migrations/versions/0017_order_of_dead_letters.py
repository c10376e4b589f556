"""Dead letters are listed by the time of their failure; the keys of an app are read in the order of their ids."""

from __future__ import annotations

from alembic import op

from hearth.sql.schema import shapes

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Replace the indexes by app."""
    connection = op.get_bind()
    shapes.add_index(connection, "dead_letters", "dead_letters_by_failure", "app_name", "died_at", "id")
    shapes.drop_index(connection, "dead_letters", "dead_letters_by_app")
    shapes.add_index(connection, "idempotency_keys", "idempotency_keys_of_app", "app_name", "id")
    shapes.drop_index(connection, "idempotency_keys", "idempotency_keys_by_app")


def downgrade() -> None:
    """Bring the earlier ones back."""
    connection = op.get_bind()
    shapes.add_index(connection, "dead_letters", "dead_letters_by_app", "app_name", "id", "died_at")
    shapes.drop_index(connection, "dead_letters", "dead_letters_by_failure")
    shapes.add_index(connection, "idempotency_keys", "idempotency_keys_by_app", "app_name")
    shapes.drop_index(connection, "idempotency_keys", "idempotency_keys_of_app")
