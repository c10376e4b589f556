"""The tables as they are today, named as in databases made by Fn (storage specification 3). Maps are JSON text.

The migrations make them; a test compares.
"""

from __future__ import annotations

import sqlalchemy as sa

from hearth.sql import kinds

metadata = sa.MetaData()

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("name", kinds.name(), primary_key=True),
    sa.Column("config", kinds.text(), nullable=False),
    sa.Column("created_at", kinds.name()),
    sa.Column("updated_at", kinds.name()),
    **kinds.TABLE_OPTIONS,
)

routes = sa.Table(
    "routes",
    metadata,
    sa.Column("app_name", kinds.name(), primary_key=True),
    sa.Column("path", kinds.name(), primary_key=True),
    sa.Column("image", kinds.name(), nullable=False),
    sa.Column("format", kinds.name(16), nullable=False),
    sa.Column("memory", sa.Integer, nullable=False),
    sa.Column("cpus", sa.Integer),
    sa.Column("timeout", sa.Integer, nullable=False),
    sa.Column("idle_timeout", sa.Integer, nullable=False),
    sa.Column("type", kinds.name(16), nullable=False),
    sa.Column("headers", kinds.text(), nullable=False),
    sa.Column("config", kinds.text(), nullable=False),
    sa.Column("created_at", kinds.text()),
    sa.Column("updated_at", kinds.name()),
    **kinds.TABLE_OPTIONS,
)

# The indexes answer each way to list calls in the order of its answer, newest first; see strays.py for bounds of time.
calls = sa.Table(
    "calls",
    metadata,
    sa.Column("created_at", kinds.name(), nullable=False),
    sa.Column("started_at", kinds.name(), nullable=False),
    sa.Column("completed_at", kinds.name(), nullable=False),
    sa.Column("status", kinds.name(), nullable=False),
    sa.Column("id", kinds.name(), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("path", kinds.name(), nullable=False),
    sa.Column("stats", kinds.text()),
    sa.Column("error", kinds.text()),
    sa.Index("calls_by_path", "app_name", "path", "id"),
    sa.Index("calls_by_app", "app_name", "id"),
    **kinds.TABLE_OPTIONS,
)

stray_calls = sa.Table(
    "stray_calls",
    metadata,
    sa.Column("id", kinds.name(), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("created_at", kinds.name(), nullable=False),
    sa.Index("stray_calls_by_time", "app_name", "created_at", "id"),
    **kinds.TABLE_OPTIONS,
)

logs = sa.Table(
    "logs",
    metadata,
    sa.Column("id", kinds.name(), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("log", kinds.blob(), nullable=False),
    **kinds.TABLE_OPTIONS,
)
