"""Build images of functions with the ``docker`` command: from the function's own Dockerfile, or without one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from hearth.projects import FuncFile, ProjectError, check, staging

#: Of the Python that images get if the function names none.
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_EXEC_BASE: Final = "debian:stable-slim"


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that was built.

    Attributes:
        reference: ``[registry/]name:tag``, which another build may take over.
        id: ``sha256:...``, which means this build only.
    """

    reference: str
    id: str

    @property
    def pinned(self) -> str:
        """A reference that no later build changes, for Engines that have the image."""
        return f"{self.reference}@{self.id}"

    def keep(self) -> None:
        """Give it a tag of its own: Docker cleans up what has none, while a route may still need it.

        Raises:
            ProjectError: docker failed; what it said.
        """
        name = self.reference.rpartition(":")[0]
        _run([_docker(self.reference), "tag", self.id, f"{name}:{self.id.replace(':', '-')}"], self.reference)


def build_image(
    func: FuncFile,
    tag: str = "",
    *,
    no_cache: bool = False,
    build_args: tuple[str, ...] = (),
    follow_outside: bool = False,
) -> Image:
    """Build the image of a function. Where it fails, an image of that name stays as it was.

    Args:
        func: Its ``build_image`` installs the requirements, its ``run_image`` is what the function is put on.
        tag: The reference, if it is not the function's own.
        no_cache: Run every step again.
        build_args: ``NAME=VALUE`` for the Dockerfile.
        follow_outside: Take the content of links that leave the function's folder, instead of refusing them.

    Raises:
        ProjectError: docker failed; what it said.
    """
    tag = tag or func.image()
    staging.run_build_commands(func)
    check.check(func, as_image=True)
    options = ["--no-cache"] if no_cache else []
    for argument in build_args:
        options += ["--build-arg", argument]
    if func.kind == "docker":
        if not (func.folder / "Dockerfile").is_file():
            raise ProjectError(f"{func.folder / 'Dockerfile'}: not found; runtime docker needs it")
        return _docker_build(func, func.folder, tag, options)
    with tempfile.TemporaryDirectory(prefix="hearth-image-") as made:
        context = Path(made)
        _lay_out(func, context, follow_outside)
        return _docker_build(func, context, tag, options)


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


def pushed_reference(image: Image) -> str:
    """Return a reference with the digest under which the registry has an image that was pushed.

    Raises:
        ProjectError: docker knows none: another build took the tag before it was pushed.
    """
    name = image.reference.rpartition(":")[0]
    told = _run([_docker(name), "image", "inspect", "--format", "{{json .RepoDigests}}", image.id], image.reference)
    for digest in json.loads(told) or []:
        if digest.startswith(f"{name}@"):
            return f"{image.reference}@{digest.rpartition('@')[2]}"
    raise ProjectError(f"{image.reference}: another build took this tag before it was pushed; deploy again")


def _lay_out(func: FuncFile, context: Path, follow_outside: bool) -> None:
    staging.copy_files(func, context / "function", follow_outside=follow_outside)
    if func.kind == "python":
        staging.copy_kit(context / "packages")
        if staging.pip_arguments(func):
            staging.write_site_hook(context / "packages")
        for path in (context / "packages").rglob("*"):  # the function's user is not the one who built it
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    (context / "Dockerfile").write_text("\n".join(dockerfile(func)) + "\n")


def dockerfile(func: FuncFile) -> list[str]:
    """Return the lines of a Dockerfile for a function that has none."""
    if func.kind != "python":
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
    lines += [f"FROM {run_image}", *copies, "COPY function /function", "WORKDIR /function"]
    lines += ["ENV PYTHONPATH=/function:/packages", f"ENV PATH=/packages/{staging.SCRIPTS}:$PATH"]
    lines += [f"ENV {name}={value}" for name, value in staging.PYTHON_ENVIRONMENT.items()]
    return [*lines, f"ENTRYPOINT {json.dumps(staging.python_command(func, 'python3'))}", "CMD []"]


def _docker_build(func: FuncFile, context: Path, tag: str, options: list[str]) -> Image:
    with tempfile.TemporaryDirectory(prefix="hearth-image-id-") as folder:
        # The id of this build: at the time of a lookup, the tag may belong to another build.
        built = Path(folder, "id")
        command = [_docker(str(func.folder)), "build", "--tag", tag, "--iidfile", str(built), *options, str(context)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode:
            said = done.stdout.strip().splitlines()[-12:]
            raise ProjectError(f"{func.folder}: the image was not built:\n" + "\n".join(said))
        return Image(tag, built.read_text().strip())


def _run(command: list[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ProjectError(f"{what}: {' '.join(command[1:])}: {done.stderr.strip() or 'failed'}")
    return done.stdout


def _docker(what: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise ProjectError(f"{what}: this needs the docker command, which is not here")
    return docker
