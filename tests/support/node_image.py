"""The node's own image, built by deploy/Dockerfile from this tree. Only the base is the machine's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.docker_images import lock
from tests.support.machine_image import machine_image

ROOT = Path(__file__).parent.parent.parent
_SHIPPED = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "src", "fdk", "deploy")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "wheels")
_LABEL = "hearth-test.source"


def node_image(folder: Path) -> str:
    """The image's name; built only if this tree has changed since. ``folder`` is for the build."""
    for name in _SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(ROOT / name, folder / name)
    name, base = f"hearth-test/node:{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}", machine_image()
    digest = _digest(folder, base)
    with lock("node"):
        look = ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{_LABEL}"}}}}', name]
        if subprocess.run(look, capture_output=True, text=True).stdout.strip() != digest:
            _build(folder, name, base, digest)
    return name


def _build(folder: Path, name: str, base: str, digest: str) -> None:
    shutil.copytree(locked_wheels(), folder / "deploy" / "wheels", copy_function=shutil.copy2)
    command: list[str | Path] = ["docker", "build", "--quiet", "-f", folder / "deploy" / "Dockerfile", "-t", name]
    for argument in (f"BASE={base}", "PIP_NO_INDEX=1", "PACKAGES="):
        command += ["--build-arg", argument]
    built = subprocess.run([*command, "--label", f"{_LABEL}={digest}", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]


def _digest(folder: Path, base: str) -> str:
    found = hashlib.sha256(base.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)} {path.stat().st_mode:o} {path.stat().st_size} ".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def locked_wheels() -> Path:
    """Wheels of both locks, fetched once as this machine fetches its packages."""
    locks = [ROOT / "deploy" / "requirements.lock", ROOT / "deploy" / "build.lock"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in locks) + sys.version.encode()).hexdigest()[:12]
    wheels = ROOT / ".venv" / f"wheels-{digest}"
    with lock("wheels"):
        if not wheels.exists():
            _fetch(locks, wheels)
    return wheels


def _fetch(locks: Sequence[Path], wheels: Path) -> None:
    partial = wheels.with_suffix(".partial")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    for file in locks:
        fetched = subprocess.run([*pip, "--dest", partial, "-r", file], capture_output=True, text=True)
        assert fetched.returncode == 0, fetched.stderr[-2000:]
    partial.rename(wheels)
