"""One image with this machine's Python, a shell and the servers that a fleet needs: no registry is needed."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PREFIX = Path(sys.base_prefix)
_PROGRAMS = (
    *("sh", "env", "true", "cat", "chown", "chmod", "cp", "id", "ls", "mkdir", "rm", "sleep", "bwrap", "locale"),
    *("haproxy", "redis-server", "redis-cli"),
)
_POSTGRES = max(Path("/usr/lib/postgresql").glob("*"), default=Path("/usr/lib/postgresql/none"))
_FOLDERS = (_POSTGRES, Path("/usr/share/postgresql"), Path("/usr/share/zoneinfo"), PREFIX)
_ACCOUNTS = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\nhaproxy:x:998:998::/tmp:/bin/sh\n"
#: What packages' own libraries may ask for.
_RUNTIME = ("libc", "libdl", "libgcc_s", "libm", "libpthread", "libresolv", "librt", "libstdc++", "libutil", "libz")
_SKIPPED = {"__pycache__", "test", "tests", "idlelib", "tkinter", "lib2to3", "turtledemo", "site-packages", "locale"}
#: Of what is installed in the interpreter, only that which builds a virtual environment.
_KEPT_PACKAGES = ("pip", "setuptools")


def machine_image() -> str:
    """The image's name; made once per machine and version of this file."""
    postgres = str(_POSTGRES)
    digest = hashlib.sha256(Path(__file__).read_bytes() + f"{PREFIX}{postgres}".encode()).hexdigest()[:12]
    name = f"hearth-test/machine:{digest}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
        return name
    path = f"{PREFIX}/bin:{postgres}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["docker", "import", "--change", f"ENV PATH={path}", "--change", "ENV LANG=C.UTF-8", "-", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            _fill(archive)
    assert process.returncode == 0
    return name


def _fill(archive: tarfile.TarFile) -> None:
    for folder, mode in (("tmp", 0o1777), ("etc", 0o755), ("root", 0o755), ("run", 0o755), ("var/run", 0o755)):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, mode
        archive.addfile(info)
    _text(archive, "etc/passwd", _ACCOUNTS)
    _text(archive, "etc/group", _ACCOUNTS)
    files = {Path(found): Path(found) for program in _PROGRAMS if (found := shutil.which(program))}
    files |= {path: path for folder in _FOLDERS for path in folder.rglob("*") if _wanted(path)}
    for library in _libraries([path for path in files.values() if path.is_file()]):
        files[library] = library
    for name in [f"bin/python{sys.version_info.major}", "bin/python"]:
        files[PREFIX / name] = PREFIX / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for inside, path in sorted(files.items()):
        archive.add(path.resolve() if path.is_symlink() else path, str(inside)[1:], recursive=False)
    link = tarfile.TarInfo("bin")
    link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
    archive.addfile(link)


def _wanted(path: Path) -> bool:
    if path.is_relative_to(PREFIX):
        parts = path.relative_to(PREFIX).parts
        if "site-packages" in parts:
            return len(parts) > 3 and parts[3].startswith(_KEPT_PACKAGES) and path.suffix != ".pyc"
        if parts[0] in ("share", "include") or _SKIPPED & set(parts) or path.suffix in (".a", ".pyc"):
            return False
    return path.is_file()


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
