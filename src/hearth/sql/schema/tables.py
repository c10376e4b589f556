"""The tables of this release, named as in Fn's databases (storage specification 3). Maps are JSON text.

The migrations create them; a test compares.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from hearth.sql.schema import kinds

metadata = sa.MetaData()

#: The calls that the index by status holds; a query has to repeat these words to be answered from it.
NO_SUCCESS: Final = sa.text("status <> 'success'")

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("name", kinds.name(), primary_key=True),
    sa.Column("config", kinds.text(), nullable=False),
    sa.Column("created_at", kinds.name()),
    sa.Column("updated_at", kinds.name()),
    sa.Column("id", kinds.name(32)),
    sa.Column("secrets", kinds.text()),
    sa.Column("annotations", kinds.text()),
    sa.Column("syslog_url", kinds.text()),
    sa.Column("shape", kinds.name(32)),
    sa.Column("auth", kinds.name(16)),
    sa.Column("quotas", kinds.text()),
    sa.Index("apps_by_id", "id", unique=True),
    **kinds.TABLE_OPTIONS,
)

# Fns and triggers are those of today's Fn (API specification of version 2, 9).
fns = sa.Table(
    "fns",
    metadata,
    sa.Column("id", kinds.name(32), primary_key=True),
    sa.Column("name", kinds.name(), nullable=False),
    sa.Column("app_id", kinds.name(32), nullable=False),
    sa.Column("image", kinds.text(), nullable=False),
    sa.Column("memory", sa.Integer, nullable=False),
    sa.Column("timeout", sa.Integer, nullable=False),
    sa.Column("idle_timeout", sa.Integer, nullable=False),
    sa.Column("config", kinds.text(), nullable=False),
    sa.Column("annotations", kinds.text(), nullable=False),
    sa.Column("created_at", kinds.name()),
    sa.Column("updated_at", kinds.name()),
    sa.Column("shape", kinds.name(32)),
    sa.Column("digest", kinds.name(128)),
    sa.Column("min_instances", kinds.name(16)),
    sa.Index("fns_by_name", "app_id", "name", unique=True),
    sa.Index("fns_by_min_instances", "min_instances"),
    **kinds.TABLE_OPTIONS,
)

# Fn keeps no two triggers of an app from having one source, so the index does not, either: the store does.
triggers = sa.Table(
    "triggers",
    metadata,
    sa.Column("id", kinds.name(32), primary_key=True),
    sa.Column("name", kinds.name(), nullable=False),
    sa.Column("app_id", kinds.name(32), nullable=False),
    sa.Column("fn_id", kinds.name(32), nullable=False),
    sa.Column("created_at", kinds.name()),
    sa.Column("updated_at", kinds.name()),
    sa.Column("type", kinds.name(16), nullable=False),
    sa.Column("source", kinds.name(), nullable=False),
    sa.Column("annotations", kinds.text(), nullable=False),
    sa.Index("triggers_by_name", "app_id", "fn_id", "name", unique=True),
    sa.Index("triggers_by_source", "app_id", "type", "source"),
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
    sa.Column("secrets", kinds.text()),
    sa.Column("secrets_as", kinds.name(16)),
    sa.Column("auth", kinds.name(16)),
    sa.Column("signature", kinds.text()),
    sa.Column("concurrency", kinds.name(16)),
    sa.Column("delivery", kinds.text()),
    sa.Column("digest", kinds.name(128)),
    sa.Column("min_instances", kinds.name(16)),
    sa.Column("max_instances", kinds.name(16)),
    sa.Index("routes_by_min_instances", "min_instances"),
    **kinds.TABLE_OPTIONS,
)

# Each list of calls comes from an index in the order of its answer, newest first; for bounds of time see
# ``sql.time_index``. Most calls succeed, so the index by status leaves those out where a database has partial indexes.
# The status of the answer is a text, as all columns of a call are: a row of texts is written fastest.
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
    sa.Column("app_id", kinds.name(32)),
    sa.Column("response_status", kinds.name(16)),
    sa.Column("details", kinds.text()),
    sa.Index("calls_by_path", "app_name", "path", "id"),
    sa.Index("calls_by_app", "app_name", "id"),
    sa.Index("calls_by_status", "app_name", "status", "id", sqlite_where=NO_SUCCESS, postgresql_where=NO_SUCCESS),
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

# The results of async calls. The head is the status and the header fields as JSON.
results = sa.Table(
    "results",
    metadata,
    sa.Column("id", kinds.name(), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("expires_at", kinds.name(32), nullable=False),
    sa.Column("head", kinds.text(), nullable=False),
    sa.Column("body", kinds.blob(), nullable=False),
    sa.Index("results_by_expiry", "expires_at", "id"),
    **kinds.TABLE_OPTIONS,
)

# Calls that failed, with their payloads. The head is the call as JSON. ``redriven_as`` is the id of the call that a
# redrive makes of it, from before that call is accepted until the dead letter is removed.
dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", kinds.name(), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("path", kinds.name(), nullable=False),
    sa.Column("died_at", kinds.name(32), nullable=False),
    sa.Column("redriven_as", kinds.name(32), nullable=False),
    sa.Column("head", kinds.text(), nullable=False),
    sa.Column("payload", kinds.blob(), nullable=False),
    sa.Index("dead_letters_by_failure", "app_name", "died_at", "id"),
    sa.Index("dead_letters_by_time", "died_at", "id"),
    **kinds.TABLE_OPTIONS,
)

# Keys of requests that are not to run twice. The id is a digest of the function and the key; head and body are those of
# the stored answer, as in ``results``.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("id", kinds.name(64), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("call_id", kinds.name(), nullable=False),
    sa.Column("fingerprint", kinds.name(64), nullable=False),
    sa.Column("state", kinds.name(16), nullable=False),
    sa.Column("held_until", kinds.name(32), nullable=False),
    sa.Column("expires_at", kinds.name(32), nullable=False),
    sa.Column("head", kinds.text(), nullable=False),
    sa.Column("body", kinds.blob(), nullable=False),
    sa.Index("idempotency_keys_by_expiry", "expires_at", "id"),
    sa.Index("idempotency_keys_of_app", "app_name", "id"),
    **kinds.TABLE_OPTIONS,
)

# The value of a token is stored as its SHA-256 only.
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", kinds.name(32), primary_key=True),
    sa.Column("name", kinds.name(), nullable=False),
    sa.Column("role", kinds.name(16), nullable=False),
    sa.Column("apps", kinds.text(), nullable=False),
    sa.Column("digest", kinds.name(64), nullable=False),
    sa.Column("created_at", kinds.name(32), nullable=False),
    sa.Column("last_used_at", kinds.name(32), nullable=False),
    sa.Column("expires_at", kinds.name(32), nullable=False),
    sa.Index("tokens_by_digest", "digest", unique=True),
    **kinds.TABLE_OPTIONS,
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", kinds.name(32), primary_key=True),
    sa.Column("created_at", kinds.name(32), nullable=False),
    sa.Column("principal", kinds.name(), nullable=False),
    sa.Column("token_id", kinds.name(32), nullable=False),
    sa.Column("action", kinds.name(64), nullable=False),
    sa.Column("app", kinds.name(), nullable=False),
    sa.Column("resource", kinds.text(), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("address", kinds.name(64), nullable=False),
    sa.Index("audit_by_app", "app", "id"),
    sa.Index("audit_by_principal", "principal", "id"),
    sa.Index("audit_by_token", "token_id", "id"),
    **kinds.TABLE_OPTIONS,
)

# ``function`` is the path of a route, or the id of a fn.
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", kinds.name(32), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("function", kinds.name(), nullable=False),
    sa.Column("image", kinds.text(), nullable=False),
    sa.Column("digest", kinds.name(128), nullable=False),
    sa.Column("config_hash", kinds.name(64), nullable=False),
    sa.Column("principal", kinds.name(), nullable=False),
    sa.Column("created_at", kinds.name(32), nullable=False),
    sa.Index("versions_by_function", "app_name", "function", "id"),
    **kinds.TABLE_OPTIONS,
)

# Encrypted; ``key_id`` names the key, which no database has.
secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("app_name", kinds.name(), primary_key=True),
    sa.Column("name", kinds.name(), primary_key=True),
    sa.Column("app_id", kinds.name(32), nullable=False),
    sa.Column("id", kinds.name(32), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at", kinds.name(), nullable=False),
    sa.Column("key_id", kinds.name(32), nullable=False),
    sa.Column("sealed", kinds.blob(), nullable=False),
    sa.Index("secrets_by_key", "key_id", "app_name", "name"),
    **kinds.TABLE_OPTIONS,
)

# ``next_at`` is NULL for a schedule that does not fire. ``definition`` is JSON.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("app_name", kinds.name(), primary_key=True),
    sa.Column("name", kinds.name(128), primary_key=True),
    sa.Column("app_id", kinds.name(32), nullable=False),
    sa.Column("id", kinds.name(32), nullable=False),
    sa.Column("definition", kinds.text(), nullable=False),
    sa.Column("anchor", kinds.name(32), nullable=False),
    sa.Column("next_at", kinds.name(32)),
    sa.Column("seen_at", kinds.name(32), nullable=False),
    sa.Column("created_at", kinds.name(32), nullable=False),
    sa.Column("updated_at", kinds.name(32), nullable=False),
    sa.Column("last_due", kinds.name(32), nullable=False),
    sa.Column("last_call", kinds.name(32), nullable=False),
    sa.Index("schedules_by_id", "id", unique=True),
    sa.Index("schedules_by_time", "next_at", "id"),
    **kinds.TABLE_OPTIONS,
)

# The key lets one node alone make the call of a firing time.
firings = sa.Table(
    "firings",
    metadata,
    sa.Column("schedule_id", kinds.name(32), primary_key=True),
    sa.Column("due", kinds.name(32), primary_key=True),
    sa.Column("app_name", kinds.name(), nullable=False),
    sa.Column("call_id", kinds.name(32), nullable=False),
    sa.Column("state", kinds.name(16), nullable=False),
    sa.Column("claimed_at", kinds.name(32), nullable=False),
    sa.Column("error", kinds.text(), nullable=False),
    sa.Index("firings_by_state", "state", "claimed_at"),
    sa.Index("firings_by_app", "app_name"),
    **kinds.TABLE_OPTIONS,
)
