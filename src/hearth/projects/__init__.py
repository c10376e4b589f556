"""Function projects: the files that describe a function (``func.yaml``) and an app (``app.yaml``) in a folder."""

from hearth.projects.app_file import AppFile, load_app
from hearth.projects.bump import bump, next_version, write_version
from hearth.projects.errors import ProjectError
from hearth.projects.func_file import FuncFile, find, find_all, load

__all__ = [
    "AppFile",
    "FuncFile",
    "ProjectError",
    "bump",
    "find",
    "find_all",
    "load",
    "load_app",
    "next_version",
    "write_version",
]
