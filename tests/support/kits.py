"""Functions in other languages: what compiles them, Fn's kits, and images that hold nothing but what they need."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.docker_images import exists, folder, import_image, lock, member, shared_libraries

ROOT: Final = Path(__file__).parents[2]
FUNCTIONS: Final = ROOT / "tests" / "functions"
KITS: Final = FUNCTIONS / "kits"
#: Where npm keeps what it has fetched; it asks the registry only for what is not there.
NPM: Final = {
    "npm_config_cache": str(ROOT / ".venv" / "npm-cache"),
    "npm_config_prefer_offline": "true",
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_audit": "false",
}
#: Modules of Node that Debian keeps beside it.
_NODE_MODULES: Final = ("acorn", "acorn-walk", "cjs-module-lexer", "undici")


def program(name: str, package: str) -> str:
    """The path of a program: without it the test is skipped, but fails where CI=true."""
    if found := shutil.which(name):
        return found
    message = f"no {name}; tools/engines.sh installs {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def kept(kind: str, inputs: Iterable[Path], fetch: Callable[[Path], None]) -> Path:
    """A folder that was fetched once for these inputs, and is kept in the environment.

    Args:
        kind: Begins its name.
        inputs: The files that say what is fetched.
        fetch: Fills a new folder.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in inputs) + sys.version.encode()).hexdigest()[:12]
    made = ROOT / ".venv" / f"{kind}-{digest}"
    with lock(kind):
        if not made.exists():
            partial = made.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fetch(partial)
            partial.rename(made)
    return made


def run(*command: Path | str, cwd: Path | None = None, environment: Mapping[str, str] = {}) -> None:
    """Run a program that has to succeed."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def c_program(made: Path) -> None:
    """Compile the function in C, linked statically: its image holds nothing else."""
    compiler = program("gcc", "gcc and libc6-dev")
    run(compiler, "-std=gnu11", "-O2", "-Wall", "-static", "-o", made, FUNCTIONS / "contract.c")


def go_program(made: Path) -> None:
    """Compile the function in Go, without anything from outside its standard library."""
    settings = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    run(program("go", "golang-go"), "build", "-trimpath", "-o", made, FUNCTIONS / "contract.go", environment=settings)


def python_sources(target: Path, version: str) -> None:
    """The function with Fn's kit for Python, beside the wheels of the kit: ``newest`` or ``oldest``."""
    source = KITS / "python"
    locked = source / f"{version}.lock"
    wheels = kept(f"kit-python-{version}", [locked], lambda made: _build_wheels(locked, made))
    shutil.copytree(wheels, target / "wheels")
    shutil.copy(source / "func.py", target)
    pinned = next(line.split()[0] for line in locked.read_text().splitlines() if line.startswith("fdk=="))
    (target / "requirements.txt").write_text(f"{pinned}\n")


def node_sources(target: Path) -> None:
    """The function with Fn's kit for Node, and the kit."""
    source = KITS / "node"
    described = [source / "package.json", source / "package-lock.json"]
    shutil.copytree(kept("kit-node", described, lambda made: _install_packages(described, made)), target)
    shutil.copy(source / "func.js", target)


def _build_wheels(locked: Path, made: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--require-hashes")
    run(*pip, "--wheel-dir", made, "-r", locked)


def _install_packages(described: Iterable[Path], made: Path) -> None:
    for file in described:
        shutil.copy(file, made)
    run(program("npm", "npm"), "ci", "--silent", cwd=made, environment=NPM)


def program_image(made: Path) -> str:
    """An image that holds a program alone; its name."""
    name = f"hearth-test/{made.name}:{hashlib.sha256(made.read_bytes()).hexdigest()[:12]}"
    if not exists(name):
        files = [member(made.name, made.read_bytes(), 0o755), folder("tmp", 0o1777)]
        import_image(name, [f"/{made.name}"], files)
    return name


def kit_image(kind: str, sources: Path, base: str) -> str:
    """The image that the Dockerfile of a kit makes of a function's sources; its name."""
    name = f"hearth-test/kit-{kind}:1"
    build = ("docker", "build", "--quiet", "-f", KITS / kind.partition("-")[0] / "Dockerfile", "-t", name)
    run(*build, "--build-arg", f"BASE={base}", sources, environment={"DOCKER_BUILDKIT": "0"})
    return name


def node_base_image() -> str:
    """An image with this machine's Node in its path; its name. Made once per version of Node."""
    node = Path(program("node", "nodejs")).resolve()
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(version.encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    name = f"hearth-test/node-base:{digest}"
    if not exists(name):
        import_image(name, [], _node_files(node))
    return name


def _node_files(node: Path) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    yield member("usr/bin/node", node.read_bytes(), 0o755)
    yield folder("tmp", 0o1777)
    for library in shared_libraries(node):
        yield member(library[1:], Path(library).read_bytes(), 0o755)
    for name in _NODE_MODULES:
        for path in sorted(Path("/usr/share/nodejs", name).rglob("*")):
            if path.is_file():
                yield member(str(path)[1:], path.read_bytes(), 0o644)
