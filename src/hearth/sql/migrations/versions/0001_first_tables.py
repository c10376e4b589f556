"""Apps, routes, calls, logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "apps",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(256)),
        sa.Column("updated_at", sa.String(256)),
    )
    op.create_table(
        "routes",
        sa.Column("app_name", sa.String(256), primary_key=True),
        sa.Column("path", sa.String(256), primary_key=True),
        sa.Column("image", sa.String(256), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("memory", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Integer),
        sa.Column("timeout", sa.Integer, nullable=False),
        sa.Column("idle_timeout", sa.Integer, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text),
        sa.Column("updated_at", sa.String(256)),
    )
    op.create_table(
        "calls",
        sa.Column("created_at", sa.String(256), nullable=False),
        sa.Column("started_at", sa.String(256), nullable=False),
        sa.Column("completed_at", sa.String(256), nullable=False),
        sa.Column("status", sa.String(256), nullable=False),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("app_name", sa.String(256), nullable=False),
        sa.Column("path", sa.String(256), nullable=False),
        sa.Column("stats", sa.Text),
        sa.Column("error", sa.Text),
    )
    op.create_index("calls_by_path", "calls", ["app_name", "path", "id"])
    op.create_table(
        "logs",
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("app_name", sa.String(256), nullable=False),
        sa.Column("log", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("logs", "calls", "routes", "apps"):
        op.drop_table(table)
