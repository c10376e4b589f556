"""Makes bundles of folders with a ``func.yaml``."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from hearth.drivers.process.bundle import FILES, MANIFEST, Bundle, Manifest, locate, remove_unheld
from hearth.projects import FuncFile, ProjectError, staging

#: Where the installed requirements of a bundle's function are.
_PACKAGES: Final = "packages"
_BUILDING: Final = ".building-"


def build_bundle(func: FuncFile, bundles: Path, packages: Sequence[Path] = ()) -> Bundle:
    """Make the bundle of a function, replacing the one of its name and version only when it is whole.

    Its requirements are installed with this Python's pip; a folder ``wheels`` in the function's is taken instead of
    an index.

    Args:
        func: What is built.
        bundles: The folder of bundles.
        packages: Folders that a Python function can import besides.

    Raises:
        ProjectError: What is wrong with the folder.
    """
    target = locate(bundles, func.image())
    if target is None:
        raise ProjectError(f"{func.file}: {func.image()!r} is no name of a bundle")
    staging.run_build_commands(func)
    try:
        return _build(func, target, packages)
    except OSError as exc:
        raise ProjectError(f"{target}: {exc.strerror or exc}; the bundle was not built") from exc


def _build(func: FuncFile, target: Path, packages: Sequence[Path]) -> Bundle:
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=target.parent))
    try:
        made.chmod(0o755)
        staging.copy_files(func.folder, made / FILES)
        manifest = _manifest(func, made)
        for package in packages:
            staging.copy_package(package, made / _PACKAGES)
        manifest.content = staging.digest(made, msgspec.json.encode(manifest))
        (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        if func.kind == "python":
            _compile(made)
        return Bundle(_swap_in(made, target), manifest)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _manifest(func: FuncFile, made: Path) -> Manifest:
    if func.kind == "docker":
        raise ProjectError(
            f"{func.file}: runtime: a function with a Dockerfile becomes an image (hearth build --driver docker)"
        )
    if func.kind != "python":
        if not func.command:
            raise ProjectError(f"{func.file}: cmd: missing; runtime exec needs cmd: [program, argument, ...]")
        return Manifest(cmd=list(func.command))
    staging.copy_kit(made / _PACKAGES)
    staging.install_requirements(func, made / _PACKAGES)
    return Manifest(
        cmd=staging.python_command(func, interpreter()),
        env={"PYTHONPATH": f"../{_PACKAGES}", **staging.PYTHON_ENVIRONMENT},
        roots=[sys.base_prefix],
    )


def _compile(made: Path) -> None:
    """Compile what a function imports: it cannot keep what it compiles, and would do it in each start.

    Not part of the digest: the same source need not become the same bytes. What does not compile is left to the import.
    """
    subprocess.run([interpreter(), "-I", "-m", "compileall", "-qq", str(made)], stdout=subprocess.DEVNULL, check=False)


def interpreter() -> str:
    """The Python that runs bundles: not one of a virtual environment, which has other packages to look through."""
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))


def _swap_in(made: Path, target: Path) -> Path:
    """Put a finished bundle in its place, at once; where it is now. Containers keep the one that they run."""
    unique = made.name.removeprefix(_BUILDING)
    beside = target.with_name(f".{target.name}@{unique}")  # no tag has such a name
    with (target.parent / ".swapping").open("w") as lock:  # of two builds of one bundle the later wins, whole
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir() and not target.is_symlink():  # made by an earlier version
            target.rename(target.with_name(f"{beside.name}.old"))
        made.rename(beside)
        link = made.with_suffix(".link")
        link.symlink_to(beside.name)
        link.replace(target)
        for other in target.parent.glob(f".{target.name}@*"):
            if other != beside:
                remove_unheld(other)
    return beside.resolve()
