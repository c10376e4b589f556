"""Images for the tests, made from this machine's own files: no registry is needed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_PREFIX = Path(sys.base_prefix)
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: In images that have :func:`python_files`.
INTERPRETER = str(_PREFIX / "bin" / _VERSION)
_LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "idlelib",
    "lib2to3",
    "tkinter",
    "ensurepip",
    "turtledemo",
}
#: Compiled modules that an interpreter without options reads. Without them each start of a container compiles again.
_COMPILED = f".{sys.implementation.cache_tag}.pyc"


def python_image(script: Path) -> str:
    """An image that runs a script with this Python; its name. Made once per content, in a layer upon :func:`python`."""
    base = python()
    digest = hashlib.sha256(base.encode() + script.read_bytes()).hexdigest()[:12]
    name = f"hearth-test/{script.stem}:{digest}"
    with lock("python-image"):
        if not exists(name):
            entrypoint = json.dumps([INTERPRETER, "/function.py"])
            recipe = f"FROM {base}\nCOPY function.py /function.py\nENTRYPOINT {entrypoint}\n".encode()
            files = [member("Dockerfile", recipe, 0o644), member("function.py", script.read_bytes(), 0o644)]
            _send(["docker", "build", "--quiet", "--tag", name, "-"], files, DOCKER_BUILDKIT="0")
    return name


def python() -> str:
    """An image that holds this Python; its name. Made once: it takes seconds, and many tests begin with it."""
    digest = hashlib.sha256(INTERPRETER.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    name = f"hearth-test/python:{digest}"
    with lock("python"):
        if not exists(name):
            import_image(name, [], interpreter_files())
    return name


def broken_image(entrypoint: str, mode: int) -> str:
    """An image whose entrypoint is a file with this mode (0: there is none)."""
    name = f"hearth-test/broken:{mode:o}"
    if not exists(name):
        files = [("program", b"not a program", mode)] if mode else [("other", b"", 0o644)]
        import_image(name, [entrypoint], [member(*file) for file in files])
    return name


def exists(name: str) -> bool:
    """Whether the Engine has it."""
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Of two test processes that need one image the second waits until the first has made it."""
    with Path(tempfile.gettempdir(), f"hearth-test-{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def import_image(name: str, entrypoint: list[str], members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Make an image of files."""
    change = f"ENTRYPOINT {json.dumps(entrypoint)}"
    _send(["docker", "import", "--change", change, "--change", "ENV PYTHONUNBUFFERED=1", "-", name], members)


def _send(command: list[str], members: Iterable[tuple[tarfile.TarInfo, bytes]], **environment: str) -> None:
    """Give files to a command as an archive."""
    variables = {**os.environ, **environment}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=variables) as process:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            for info, data in members:
                archive.addfile(info, io.BytesIO(data))
    assert process.returncode == 0


def python_files(script: Path) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    """A script, and :func:`interpreter_files`."""
    yield member("function.py", script.read_bytes(), 0o644)
    yield from interpreter_files()


def interpreter_files() -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    """This Python, its library, and what those are linked to."""
    yield folder("tmp", 0o1777)
    yield member(INTERPRETER[1:], Path(INTERPRETER).resolve().read_bytes(), 0o755)
    library = _PREFIX / "lib" / _VERSION
    for path in sorted(library.rglob("*")):
        if is_wanted(path) and not _LEFT_OUT & set(path.relative_to(library).parts):
            info, data = member(str(path)[1:], path.read_bytes(), 0o755 if path.suffix == ".so" else 0o644)
            info.mtime = int(path.stat().st_mtime)  # a compiled module names that of its source
            yield info, data
    seen: set[str] = set()
    for binary in [Path(INTERPRETER), *(library / "lib-dynload").glob("*.so")]:
        for shared in shared_libraries(binary):
            if shared not in seen:
                seen.add(shared)
                yield member(shared[1:], Path(shared).read_bytes(), 0o755)


def is_wanted(path: Path) -> bool:
    """Return whether a file of a library is used: of compiled modules, those for an interpreter without options."""
    return path.is_file() and (path.suffix != ".pyc" or path.name.endswith(_COMPILED))


def shared_libraries(binary: Path) -> list[str]:
    """The paths of the libraries that a program or a library is linked to."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
    words = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    return [word for word in words if Path(word).exists()]


def member(name: str, data: bytes, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    """A file."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def folder(name: str, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    """A folder."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""
