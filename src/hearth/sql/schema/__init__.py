"""The tables, and the ways to them from each older version."""

from hearth.sql.schema.migrate import Version, down, head, look, revisions, up

__all__ = ["Version", "down", "head", "look", "revisions", "up"]
