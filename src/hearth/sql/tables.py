"""The tables, named as in databases made by Fn (storage specification 2). Maps are kept as JSON text."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(256)),
    sa.Column("updated_at", sa.String(256)),
)

routes = sa.Table(
    "routes",
    metadata,
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

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("created_at", sa.String(256), nullable=False),
    sa.Column("started_at", sa.String(256), nullable=False),
    sa.Column("completed_at", sa.String(256), nullable=False),
    sa.Column("status", sa.String(256), nullable=False),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("app_name", sa.String(256), nullable=False),
    sa.Column("path", sa.String(256), nullable=False),
    sa.Column("stats", sa.Text),
    sa.Column("error", sa.Text),
    sa.Index("calls_by_path", "app_name", "path", "id"),
)

logs = sa.Table(
    "logs",
    metadata,
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("app_name", sa.String(256), nullable=False),
    sa.Column("log", sa.LargeBinary, nullable=False),
)
