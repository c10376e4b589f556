"""What is wrong with a project."""

from __future__ import annotations

from hearth.models.errors import HearthError


class ProjectError(HearthError):
    """A project's file is of no use; the text names the file, the line and the field, one problem per line."""
