"""The contexts that the command shares with the fn CLI: ``~/.fn/config.yaml`` and ``~/.fn/contexts/*.yaml``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Final

from hearth.cli.output import CommandError

DEFAULT_CONTEXT: Final = "default"
DEFAULT_API_URL: Final = "http://localhost:8080"
CURRENT: Final = "current-context"
API_URL: Final = "api-url"
REGISTRY: Final = "registry"
PROVIDER: Final = "provider"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
#: What a context has when its file does not exist.
_DEFAULTS: Final = {API_URL: DEFAULT_API_URL, PROVIDER: "default", REGISTRY: ""}


@dataclasses.dataclass(frozen=True, slots=True)
class FnHome:
    """The folder ``~/.fn``. Only commands that change a file write it, and they keep keys of other programs."""

    folder: Path = dataclasses.field(default_factory=lambda: Path.home() / ".fn")

    @property
    def _config(self) -> Path:
        return self.folder / "config.yaml"

    def current(self) -> str:
        """Return the name of the current context; empty if there is none."""
        return str(_read(self._config).get(CURRENT, DEFAULT_CONTEXT) or "")

    def use(self, name: str) -> None:
        """Make a context, or with an empty name none, the one in use."""
        if name:
            self.get(name)
        _write(self._config, {**_read(self._config), CURRENT: name})

    def names(self) -> list[str]:
        """Return the names of all contexts, which always include ``default``."""
        found = {path.stem for path in (self.folder / "contexts").glob("*.yaml")}
        return sorted(found | {DEFAULT_CONTEXT})

    def get(self, name: str) -> dict[str, Any]:
        """Return the values of a context.

        Raises:
            CommandError: There is none of this name.
        """
        path = self._path(name)
        if not path.exists():
            if name == DEFAULT_CONTEXT:
                return dict(_DEFAULTS)
            raise CommandError(f"context {name} not found in {path.parent}; hearth contexts list shows those there are")
        return _read(path)

    def create(self, name: str, values: dict[str, Any]) -> None:
        """Make a context.

        Raises:
            CommandError: The name is taken.
        """
        if self._path(name).exists() or name == DEFAULT_CONTEXT:
            raise CommandError(f"context {name} already exists")
        _write(self._path(name), values)

    def update(self, name: str, key: str, value: str | None) -> None:
        """Set a value of a context; ``None`` takes it away."""
        values = self.get(name)
        values.pop(key, None)
        _write(self._path(name), values if value is None else {**values, key: value})

    def delete(self, name: str) -> None:
        """Remove a context.

        Raises:
            CommandError: It is in use, the default one, or does not exist.
        """
        if name == DEFAULT_CONTEXT:
            raise CommandError("the default context cannot be deleted")
        if name == self.current():
            raise CommandError(f"context {name} is in use; hearth use context default leaves it")
        self.get(name)
        self._path(name).unlink()

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise CommandError(f"{name!r}: a context's name has letters, digits, _ . and -")
        return self.folder / "contexts" / f"{name}.yaml"


def _yaml() -> Any:
    """Import YAML only to read or write a file: a command without a request does neither."""
    import yaml

    return yaml


def _read(path: Path) -> dict[str, Any]:
    yaml = _yaml()
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise CommandError(f"{path}: {' '.join(str(exc).split())}") from exc
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CommandError(f"{path}: should be a mapping of names to values")
    return found


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".new")
        made.write_text(_yaml().safe_dump(values, sort_keys=True))
        made.replace(path)
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror or exc}") from exc
