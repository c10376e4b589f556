"""What ``python:slim`` is to users, made from this machine's own Python and pip: no registry is needed."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pip

from tests.support import docker_images
from tests.support.docker_images import exists, folder, import_image, interpreter_files, lock, member

_INTERPRETER = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def base_image() -> str:
    """An image with ``python3`` and pip in its path; its name. Made once."""
    made_of = f"{_INTERPRETER}{pip.__version__}".encode() + Path(docker_images.__file__).read_bytes()
    name = f"hearth-test/base:{hashlib.sha256(made_of).hexdigest()[:12]}"
    with lock("base"):
        if not exists(name):
            import_image(name, [], _files())
    return name


def _files() -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    yield from interpreter_files()
    link = tarfile.TarInfo("usr/local/bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, _INTERPRETER
    yield link, b""
    yield folder("var/tmp", 0o1777)
    package = Path(pip.__file__).parent
    library = Path(_INTERPRETER).parent.parent / "lib" / Path(_INTERPRETER).name / "site-packages" / "pip"
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield member(str(library / path.relative_to(package))[1:], path.read_bytes(), 0o644)
