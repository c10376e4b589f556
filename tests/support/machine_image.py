"""Images of this machine's own programs, as no registry is needed: one for nodes, one of the servers of a fleet."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.docker_images import exists, is_wanted, lock

PREFIX = Path(sys.base_prefix)
_SHELL = ("sh", "env", "true", "cat", "chown", "chmod", "cp", "id", "ls", "mkdir", "rm", "sleep", "locale")
_SERVERS = ("haproxy", "redis-server", "redis-cli", "prometheus")
_RCLONE = Path(sys.executable).with_name("rclone")
_POSTGRES = max(Path("/usr/lib/postgresql").glob("*"), default=Path("/usr/lib/postgresql/none"))
_ACCOUNTS = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\nhaproxy:x:998:998::/tmp:/bin/sh\n"
#: What packages' own libraries may ask for.
_RUNTIME = ("libc", "libdl", "libgcc_s", "libm", "libpthread", "libresolv", "librt", "libstdc++", "libutil", "libz")
_SKIPPED = {"test", "tests", "idlelib", "tkinter", "lib2to3", "turtledemo", "site-packages", "locale"}
#: PostgreSQL's compiler of queries, whose library is larger than all the rest.
_COMPILER = ("bitcode", "llvmjit.so", "llvmjit_types.bc")
#: Of what is installed in the interpreter, only that which builds a virtual environment.
_KEPT_PACKAGES = ("pip", "setuptools")


def machine_image() -> str:
    """With this machine's Python, a shell and bubblewrap; its name. Made once per machine and version of this file."""
    return _image("machine", (*_SHELL, "bwrap"), (PREFIX,), f"{PREFIX}/bin")


def servers_image() -> str:
    """With PostgreSQL, Redis, HAProxy, Prometheus and an S3 store (rclone); its name. Made once, too."""
    folders = (_POSTGRES, Path("/usr/share/postgresql"), Path("/usr/share/zoneinfo"))
    return _image("servers", (*_SHELL, *_SERVERS, str(_RCLONE)), folders, f"{_POSTGRES}/bin")


def _image(kind: str, programs: Sequence[str], folders: Sequence[Path], search: str) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes() + f"{folders}{search}".encode()).hexdigest()[:12]
    name = f"hearth-test/{kind}:{digest}"
    with lock(kind):
        if not exists(name):
            _import(name, search, programs, folders)
    return name


def _import(name: str, search: str, programs: Sequence[str], folders: Sequence[Path]) -> None:
    path = f"{search}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["docker", "import", "--change", f"ENV PATH={path}", "--change", "ENV LANG=C.UTF-8", "-", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            _fill(archive, programs, folders)
    assert process.returncode == 0


def _fill(archive: tarfile.TarFile, programs: Sequence[str], folders: Sequence[Path]) -> None:
    for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("root", 0o755), ("run", 0o755), ("var/run", 0o755)):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, mode
        archive.addfile(info)
    data = tarfile.TarInfo("var/lib/postgresql/data")  # a new volume takes its owner over
    data.type, data.mode, data.uid, data.gid = tarfile.DIRTYPE, 0o700, 999, 999
    archive.addfile(data)
    _text(archive, "etc/passwd", _ACCOUNTS)
    _text(archive, "etc/group", _ACCOUNTS)
    found = [Path(path) for program in programs if (path := shutil.which(program))]
    files = {Path("/usr/local/bin", path.name) if path == _RCLONE else path: path for path in found}
    files |= {path: path for folder in folders for path in folder.rglob("*") if _wanted(path)}
    for library in _libraries([path for path in files.values() if path.is_file()]):
        files[library] = library
    if PREFIX in folders:
        for name in [f"bin/python{sys.version_info.major}", "bin/python"]:
            files[PREFIX / name] = PREFIX / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for inside, file in sorted(files.items()):
        archive.add(file.resolve() if file.is_symlink() else file, str(inside)[1:], recursive=False)
    link = tarfile.TarInfo("bin")
    link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
    archive.addfile(link)


def _wanted(path: Path) -> bool:
    if path.is_relative_to(PREFIX):
        parts = path.relative_to(PREFIX).parts
        if "site-packages" in parts:
            return len(parts) > 3 and parts[3].startswith(_KEPT_PACKAGES) and is_wanted(path)
        if parts[0] in ("share", "include") or _SKIPPED & set(parts) or path.suffix == ".a":
            return False
    return is_wanted(path) and not set(path.parts) & set(_COMPILER)


def _libraries(paths: list[Path]) -> set[Path]:
    """The shared libraries of these programs and libraries, with the loader."""
    binaries = [path for path in paths if _is_elf(path)]
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    words = {word for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    places = [Path(word).parent for word in words if word.endswith("/libc.so.6")]
    runtime = [path for place in places for name in _RUNTIME for path in place.glob(f"{name}.so.*")]
    return {path for path in (*map(Path, words), *runtime) if path.exists()}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _text(archive: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text.encode()))
