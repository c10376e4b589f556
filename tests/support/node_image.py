"""The node's own image, built by deploy/Dockerfile from this tree. Only the base is the machine's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.machine_image import machine_image

ROOT = Path(__file__).parent.parent.parent
_SHIPPED = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "src", "deploy")


def node_image(folder: Path) -> str:
    """The image's name. ``folder`` is for the build; the Engine keeps layers that did not change."""
    for name in _SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "wheels"))
        else:
            shutil.copy(ROOT / name, folder / name)
    shutil.copytree(_wheels(), folder / "deploy" / "wheels", copy_function=shutil.copy2)
    name = f"hearth-test/node:{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    command = ["docker", "build", "--quiet", "-f", folder / "deploy" / "Dockerfile", "-t", name]
    for argument in (f"BASE={machine_image()}", "PIP_NO_INDEX=1", "PACKAGES="):
        command += ["--build-arg", argument]
    built = subprocess.run([*command, folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return name


def _wheels() -> Path:
    """Wheels of both locks, fetched once as this machine fetches its packages."""
    locks = [ROOT / "deploy" / "requirements.lock", ROOT / "deploy" / "build.lock"]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks) + sys.version.encode()).hexdigest()[:12]
    wheels = ROOT / ".venv" / f"wheels-{digest}"
    if not wheels.exists():
        partial = wheels.with_suffix(".partial")
        for lock in locks:
            options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--dest", partial, "-r", lock]
            fetched = subprocess.run(
                [sys.executable, "-m", "pip", "download", *options], capture_output=True, text=True
            )
            assert fetched.returncode == 0, fetched.stderr[-2000:]
        partial.rename(wheels)
    return wheels
