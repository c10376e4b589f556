"""Bundles: functions as plain folders (``<bundles>/<name>/<tag>/``), made from a folder with a ``func.yaml``."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

import msgspec
import yaml

from hearth.models.errors import HearthError

MANIFEST: Final = "bundle.json"
#: Where a bundle's own files are, and where its installed requirements are.
_FILES: Final = "function"
_PACKAGES: Final = "packages"
_REFERENCE: Final = re.compile(r"([a-z0-9][a-z0-9._/-]*?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?", re.ASCII)


class BundleError(HearthError):
    """A folder cannot become a bundle; the text names the file, the field and what to do."""


class Recipe(msgspec.Struct, forbid_unknown_fields=False):
    """What ``func.yaml`` says. ``memory`` is MiB, ``timeout`` and ``idle_timeout`` are seconds."""

    name: str
    version: str = "latest"
    runtime: Literal["python", "exec"] = "exec"
    cmd: list[str] = msgspec.field(default_factory=list)
    format: Literal["default", "http", "json"] = "default"
    memory: int = 128
    timeout: int = 30
    idle_timeout: int = 30


class Manifest(msgspec.Struct, kw_only=True):
    """How a bundle is run. ``roots``: folders outside the system's that the command needs to see."""

    cmd: list[str]
    env: dict[str, str] = msgspec.field(default_factory=dict)
    roots: list[str] = msgspec.field(default_factory=list)
    format: str = "default"
    memory: int = 128
    timeout: int = 30
    idle_timeout: int = 30


class Bundle:
    """One bundle on disk."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def files(self) -> Path:
        """The function's own files: its working directory."""
        return self.folder / _FILES


def locate(bundles: Path, image: str) -> Path | None:
    """The folder of a reference ``name[:tag]``, always below ``bundles``; ``None`` if it names no bundle."""
    match = _REFERENCE.fullmatch(image)
    if match is None or any(part in ("", ".", "..") for part in match[1].split("/")):
        return None
    return bundles / match[1] / (match[2] or "latest")


def load(folder: Path) -> Bundle | None:
    """The bundle in a folder, if there is one. Blocks shortly."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    return Bundle(folder.resolve(), manifest)


def build(source: Path, bundles: Path) -> tuple[str, Bundle]:
    """Make the bundle of a folder, replacing one of the same name and version; its reference, and the bundle.

    Raises:
        BundleError: What is wrong with the folder.
    """
    recipe = read_recipe(source)
    reference = f"{recipe.name}:{recipe.version}"
    target = locate(bundles, reference)
    if target is None:
        raise BundleError(
            f"{source / 'func.yaml'}: name and version: {reference!r} is no image reference; "
            "a name has small letters, digits and . _ - /, a version has no /"
        )
    try:
        return reference, _build(recipe, source, target)
    except OSError as exc:
        raise BundleError(f"{target}: {exc.strerror or exc}; the bundle was not built") from exc


def _build(recipe: Recipe, source: Path, target: Path) -> Bundle:
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        made.chmod(0o755)
        shutil.copytree(source, made / _FILES, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        manifest = _manifest(recipe, source, made)
        (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _swap_in(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return Bundle(target, manifest)


def read_recipe(source: Path) -> Recipe:
    """The ``func.yaml`` of a folder.

    Raises:
        BundleError: It is missing or wrong.
    """
    file = source / "func.yaml"
    try:
        return msgspec.convert(yaml.safe_load(file.read_text()), Recipe)
    except FileNotFoundError:
        raise BundleError(f"{file}: not found; a function's folder holds a func.yaml with name and version") from None
    except (OSError, yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as exc:
        raise BundleError(f"{file}: {exc}") from exc


def _manifest(recipe: Recipe, source: Path, made: Path) -> Manifest:
    manifest = Manifest(
        cmd=recipe.cmd,
        format=recipe.format,
        memory=recipe.memory,
        timeout=recipe.timeout,
        idle_timeout=recipe.idle_timeout,
    )
    if recipe.runtime == "python":
        interpreter = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        manifest.cmd = [str(interpreter), *(recipe.cmd or ["func.py"])]
        manifest.env = {"PYTHONPATH": f"../{_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        manifest.roots = [sys.base_prefix]
        _install_requirements(source / "requirements.txt", made / _PACKAGES)
    elif not recipe.cmd:
        raise BundleError(f"{source / 'func.yaml'}: cmd: missing; runtime exec needs cmd: [program, argument, ...]")
    return manifest


def _install_requirements(requirements: Path, packages: Path) -> None:
    packages.mkdir()
    if not requirements.exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    done = subprocess.run(
        [*command, "--target", str(packages.resolve()), "--requirement", requirements.name],
        capture_output=True,
        text=True,
        cwd=requirements.parent,  # a path in it, ./wheels/own.whl, is meant from where it is written
    )
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise BundleError(f"{requirements}: cannot be installed: {' '.join(said)}")


def _swap_in(made: Path, target: Path) -> None:
    """Put a finished bundle in its place. Containers of the one that was there keep their files open."""
    old = made.with_name(made.name + ".old")
    with (target.parent / ".swapping").open("w") as lock:  # of two builds of one bundle the later wins, whole
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        made.rename(target)
    shutil.rmtree(old, ignore_errors=True)
