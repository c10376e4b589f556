"""Errors of a project."""

from __future__ import annotations

from hearth.models.errors import HearthError


class ProjectError(HearthError):
    """A file of a project is not valid; the message names file, line and field, one problem per line."""
