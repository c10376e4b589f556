"""Build bundles from folders with a ``func.yaml``."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hearth.drivers.local import programs, requirements, sandbox, stored
from hearth.drivers.local.bundle import (
    BUILDING,
    FILES,
    Bundle,
    Manifest,
    exclusive,
    folder_name,
    index_name,
    locate,
    make_folder,
)
from hearth.drivers.local.stored import PACKAGES, interpreter
from hearth.images.documents import encode
from hearth.images.errors import ImageStoreError
from hearth.images.layout import ImageStore
from hearth.images.pack import Layer, write_layer
from hearth.projects import FuncFile, ProjectError, check, staging


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    follow_outside: bool
    moves_tag: bool
    upgrade: bool


def build_bundle(
    func: FuncFile,
    bundles: Path,
    packages: Sequence[Path] = (),
    *,
    follow_outside: bool = False,
    moves_tag: bool = True,
    upgrade: bool = False,
) -> Bundle:
    """Build the image and the bundle of a function, and have its tag lead there. Earlier builds stay as they are.

    Its requirements are installed with this Python's pip, once for all functions that have the same ones; a folder
    ``wheels`` in the function's is taken instead of an index. The same input becomes the same image.

    Args:
        func: What is built.
        bundles: The folder of bundles.
        packages: Folders that a Python function can import besides.
        follow_outside: Take the content of links that leave the function's folder, instead of refusing them.
        moves_tag: False leaves a tag that leads to another build: a route may have it as its image, without a digest.
        upgrade: Install requirements again, also if they are unchanged: there may be newer versions.

    Raises:
        ProjectError: What is wrong with the folder.
    """
    target = locate(bundles, func.image())
    if target is None:
        raise ProjectError(f"{func.file}: {func.image()!r} is not a valid name of a bundle")
    staging.run_build_commands(func)
    check.check(func, as_image=False)
    try:
        make_folder(bundles)
        made = _build(func, target, bundles, packages, _Options(follow_outside, moves_tag, upgrade))
        if moves_tag or not target.exists():
            _move_tag(target, made.folder)
        return made
    except OSError as exc:
        raise ProjectError(f"{target}: {exc.strerror or exc}; the bundle was not built") from exc
    except ImageStoreError as exc:
        raise ProjectError(f"{target}: {exc}; the bundle was not built") from exc


def _build(func: FuncFile, target: Path, bundles: Path, packages: Sequence[Path], options: _Options) -> Bundle:
    """Compose the image, unpack it, and store it once its command is known to be there."""
    store = stored.image_store(bundles)
    store.make()
    with tempfile.TemporaryDirectory(prefix=BUILDING, dir=store.blobs.uploads) as folder:
        manifest, layers = _layers(func, store, Path(folder), packages, options)
        image = stored.compose(store, manifest, layers)
    place = target.with_name(folder_name(image.digest))
    made = stored.make(bundles, store, image, place)
    try:
        _check_command(func, made)
        final = Bundle(stored.put_in_place(made.folder, place), made.manifest)
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)
    name = index_name(func.image())
    store.put_manifest(encode(image.manifest), [name] if options.moves_tag or store.resolve(name) is None else [])
    return final


def _layers(
    func: FuncFile, store: ImageStore, folder: Path, packages: Sequence[Path], options: _Options
) -> tuple[Manifest, list[Layer]]:
    """Return how the function runs, and the layers of its image: what it requires below its own files."""
    if func.kind == "docker":
        raise ProjectError(
            f"{func.file}: runtime: a function with a Dockerfile becomes an image (hearth build --driver docker)"
        )
    layers = []
    manifest = Manifest(cmd=list(func.command))
    if func.kind == "python":
        manifest = Manifest(
            cmd=staging.python_command(func, interpreter()),
            env=dict(staging.PYTHON_ENVIRONMENT),
            # Absolute once it runs: a child process with another working folder finds the same modules and programs.
            paths={"PYTHONPATH": [FILES, PACKAGES], "PATH": [f"{PACKAGES}/{staging.SCRIPTS}"]},
            roots=[sys.base_prefix],
        )
        layers.append(requirements.layer(func, store, folder, interpreter(), upgrade=options.upgrade))
        if packages:
            more = folder / "more"
            for package in packages:
                staging.copy_package(package, more / PACKAGES)
            layers.append(write_layer(store, more, [PACKAGES]))
    staging.copy_files(func, folder / FILES, follow_outside=options.follow_outside)
    if func.kind == "python":
        requirements.compile_modules(folder / FILES, interpreter())
    layers.append(write_layer(store, folder, [FILES]))
    return manifest, layers


def _check_command(func: FuncFile, made: Bundle) -> None:
    """Make sure that the command exists in what the function will see.

    Raises:
        ProjectError: It does not.
    """
    manifest = made.manifest
    seen = None if shutil.which("bwrap") is None else [*sandbox.SYSTEM, *manifest.roots, str(made.folder)]
    search = made.environment({"PATH": programs.PATH}, {})["PATH"]
    if fault := programs.find_fault(manifest.cmd, made.files, search, seen):
        raise ProjectError(f"{func.where('cmd', 'entrypoint')}: {fault}")


def _move_tag(target: Path, folder: Path) -> None:
    """Have a tag lead to a build; of two builds of one tag the later wins."""
    with exclusive(target.parent):
        if target.is_dir() and not target.is_symlink():  # a bundle of an earlier version
            target.rename(target.with_name(f".{target.name}@{folder.name}.old"))
        link = target.with_name(f"{BUILDING}{target.name}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.replace(target)
