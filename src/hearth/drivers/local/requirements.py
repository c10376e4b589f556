"""The layer with what a Python function requires: installed once for all functions that require the same.

A record beside the store says which layer an input became. The input is all that an installation depends on: the
interpreter, the kit, the requirement files, the folder of wheels. It does not say which versions an index has today: a
record is used until its requirements change or ``hearth build --upgrade`` asks for newer versions. The record lists
the resolved archives with their hashes; those that lie in folders of this machine are hashed again before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Final

import msgspec

import hearth_fdk
from hearth.drivers.local.stored import PACKAGES
from hearth.host import private_files
from hearth.images.layout import ImageStore
from hearth.images.pack import Layer, write_layer
from hearth.projects import FuncFile, staging

_RECORDS: Final = "requirements"
#: Written by pip: the folder on this machine that something was installed from.
_ORIGIN: Final = "direct_url.json"


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, and what it was made of.

    Attributes:
        layer: The layer.
        archives: URLs of all archives with their hashes.
        local: Digests of the archives and folders of this machine, by path.
    """

    layer: Layer
    archives: dict[str, str]
    local: dict[str, str]


def layer(func: FuncFile, store: ImageStore, folder: Path, interpreter: str, *, upgrade: bool) -> Layer:
    """Return the layer with the kit and the requirements of a function; install them if no layer has them. Blocks.

    Args:
        func: The function.
        store: Gets the layer.
        folder: For temporary files.
        interpreter: Runs the function.
        upgrade: Install them again.

    Raises:
        ProjectError: They cannot be installed.
        ImageStoreError: The disk refused.
        OSError: A file cannot be read.
    """
    path = store.root / _RECORDS / _key(func, interpreter)
    if not upgrade and (record := _read(path)) is not None and _holds(record, store):
        return record.layer
    packages = folder / PACKAGES
    staging.copy_kit(packages)
    archives = staging.install_requirements(func, packages, interpreter)
    _forget_origins(packages)
    compile_modules(packages, interpreter)
    made = write_layer(store, folder, [PACKAGES])
    shutil.rmtree(packages)
    local = {place: _local_digest(Path(place)) for place in _local(archives)}
    private_files.make_folder(path.parent)
    private_files.replace(path, msgspec.json.encode(_Record(layer=made, archives=archives, local=local)).decode())
    return made


def compile_modules(folder: Path, interpreter: str) -> None:
    """Compile modules: a function cannot keep what it compiles, and would do it in each start. Blocks.

    Compiled modules name no time and no folder, so equal sources become equal files. What does not compile is left to
    the import.
    """
    subprocess.run(
        [
            *(interpreter, "-I", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(folder.parent), str(folder)),
        ],
        stdout=subprocess.DEVNULL,
        check=False,
        env={"PYTHONHASHSEED": "0"},
    )


def _key(func: FuncFile, interpreter: str) -> str:
    found = hashlib.sha256()
    kit = Path(hearth_fdk.__file__).parent
    parts = [interpreter.encode(), _sources_digest(kit).encode()]
    files = staging.requirement_files(func)
    for file in files:
        parts += [os.path.relpath(file, func.folder.resolve()).encode(), file.read_bytes()]
    wheels = func.folder / staging.WHEELS
    if files and wheels.is_dir():
        parts.append(staging.digest(wheels).encode())
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.hexdigest()


def _sources_digest(folder: Path) -> str:
    """Return the digest of a package's modules."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _read(path: Path) -> _Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _holds(record: _Record, store: ImageStore) -> bool:
    """Return whether the layer is there, and nothing on this machine that it was made of has changed."""
    if store.blobs.renew(record.layer.descriptor.digest) is None:
        return False
    with contextlib.suppress(OSError):
        return all(_local_digest(Path(path)) == digest for path, digest in record.local.items())
    return False


def _local(archives: dict[str, str]) -> list[str]:
    urls = [urllib.parse.urlsplit(url) for url in archives]
    return [urllib.parse.unquote(url.path) for url in urls if url.scheme == "file"]


def _local_digest(path: Path) -> str:
    if path.is_dir():
        return staging.digest(path)
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _forget_origins(packages: Path) -> None:
    """Remove the files that name a folder of this machine, so that the layer depends on contents only."""
    for origin in packages.glob(f"*.dist-info/{_ORIGIN}"):
        origin.unlink()
        record = origin.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if f"/{_ORIGIN}," not in line))
