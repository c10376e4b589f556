"""Images of functions, made by the ``docker`` command: with the function's own Dockerfile, or without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from hearth.projects import FuncFile, ProjectError, staging

#: Of the Python that images get if the function names none.
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_EXEC_BASE: Final = "debian:stable-slim"


def build_image(func: FuncFile, tag: str = "", *, no_cache: bool = False, build_args: tuple[str, ...] = ()) -> str:
    """Make the image of a function; its reference. Where it fails, an image of that name stays as it was.

    Args:
        func: Its ``build_image`` installs the requirements, its ``run_image`` is what the function is put on.
        tag: The reference, if it is not the function's own.
        no_cache: Run every step again.
        build_args: ``NAME=VALUE`` for the Dockerfile.

    Raises:
        ProjectError: docker failed; what it said.
    """
    tag = tag or func.image()
    staging.run_build_commands(func)
    options = ["--no-cache"] if no_cache else []
    for argument in build_args:
        options += ["--build-arg", argument]
    if func.kind == "docker":
        if not (func.folder / "Dockerfile").is_file():
            raise ProjectError(f"{func.folder / 'Dockerfile'}: not found; runtime docker needs it")
        _docker_build(func, func.folder, tag, options)
        return tag
    with tempfile.TemporaryDirectory(prefix="hearth-image-") as made:
        context = Path(made)
        _lay_out(func, context)
        _docker_build(func, context, tag, options)
    return tag


def push_image(image: str, *, verbose: bool = False) -> None:
    """Send an image to the registry that its name begins with.

    Args:
        image: Its reference.
        verbose: Show what docker says.

    Raises:
        ProjectError: docker failed; what it said last.
    """
    done = subprocess.run([_docker(image), "push", image], capture_output=not verbose, text=True)
    if done.returncode:
        said = (done.stderr or "").strip().splitlines()
        raise ProjectError(f"docker push {image}: {said[-1] if said else 'failed'}")


def _lay_out(func: FuncFile, context: Path) -> None:
    staging.copy_files(func.folder, context / "function")
    if func.kind == "python":
        staging.copy_kit(context / "packages")
    for path in context.rglob("*"):  # the function's user is not the one who built it
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))
    (context / "Dockerfile").write_text("\n".join(dockerfile(func)) + "\n")


def dockerfile(func: FuncFile) -> list[str]:
    """The lines by which a function without a Dockerfile becomes an image."""
    if func.kind != "python":
        if not func.command:
            raise ProjectError(f"{func.file}: cmd: missing; runtime exec needs cmd: [program, argument, ...]")
        lines = [f"FROM {func.run_image or _EXEC_BASE}", "COPY function /function"]
        return [*lines, "WORKDIR /function", f"ENTRYPOINT {json.dumps(func.command)}"]
    version = (func.runtime or "python").removeprefix("python")
    default = f"python:{version if '.' in version else _PYTHON}-slim"
    run_image = func.run_image or default
    lines, copies = [], ["COPY packages /packages"]
    if pip := staging.pip_arguments(func):
        install = ["python3", "-m", "pip", *pip, "--target", "/installed"]
        lines = [f"FROM {func.build_image or run_image} AS installed", "WORKDIR /function", "COPY function /function"]
        lines.append(f"RUN {json.dumps(install)}")
        copies.append("COPY --from=installed /installed /packages")
    lines += [f"FROM {run_image}", *copies, "COPY function /function", "WORKDIR /function", "ENV PYTHONPATH=/packages"]
    lines += [f"ENV {name}={value}" for name, value in staging.PYTHON_ENVIRONMENT.items()]
    return [*lines, f"ENTRYPOINT {json.dumps(staging.python_command(func, 'python3'))}", "CMD []"]


def _docker_build(func: FuncFile, context: Path, tag: str, options: list[str]) -> None:
    command = [_docker(str(func.folder)), "build", "--tag", tag, *options, str(context)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = done.stdout.strip().splitlines()[-12:]
        raise ProjectError(f"{func.folder}: the image was not built:\n" + "\n".join(said))


def _docker(what: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise ProjectError(f"{what}: this needs the docker command, which is not here")
    return docker
