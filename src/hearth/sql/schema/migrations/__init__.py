"""The schema's history, newest last; Alembic walks it."""
