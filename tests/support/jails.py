"""Where functions try to escape from: a driver in a process that is root, or an ordinary user."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hearth import projects
from hearth.drivers.local import mounts
from hearth.drivers.local.build import build_bundle
from hearth.images.layout import ImageStore
from hearth.models.ids import encode
from tests.support.docker_images import INTERPRETER, member, python_files
from tests.support.layers import TAR_TYPE, archive, put_image

ESCAPE = Path(__file__).parent.parent / "functions" / "escape.py"
ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("jail_server.py")
#: A user that no machine has. Each process of the tests has its own: the kernel counts processes by user.
ORDINARY_UID = 50_000 + os.getpid() % 10_000
_numbers = itertools.count(os.getpid() << 32)
_made: list[str] = []


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """A function that has ended."""

    stdout: str = ""
    stderr: str = ""
    code: int = -1
    oom: bool = False
    error: str = ""

    @property
    def told(self) -> Any:
        """What it printed as JSON."""
        assert self.code == 0, self
        return json.loads(self.stdout)


class Jail:
    """Runs functions, each in a container of its own.

    Attributes:
        is_root: The server runs as root.
        limits_memory: By control groups.
        bundles: The folder of its bundles.
        has_own_root: The function is an image with a root file system, which it may write to.
    """

    def __init__(
        self, process: subprocess.Popen[str], bundles: Path, image: str, *, is_root: bool, has_own_root: bool
    ) -> None:
        self._process = process
        self.bundles = bundles
        self.image = image
        self.is_root = is_root
        self.has_own_root = has_own_root
        self.capabilities = self._answer()
        self.limits_memory: bool = self.capabilities.get("limits_memory", False)

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def run(self, escape: str, *, app: str = "app", memory_mib: int = 64, **more: Any) -> Ran:
        """Run one way of escape to its end."""
        return Ran(**self._order(encode(next(_numbers)), escape, app, memory_mib, **more))

    @contextlib.contextmanager
    def held(self, escape: str, *, app: str = "app", memory_mib: int = 64, **more: Any) -> Iterator[list[int]]:
        """Have a function that writes something and stays; its processes on this machine."""
        container_id = encode(next(_numbers))
        answer = self._order(container_id, escape, app, memory_mib, hold=True, **more)
        assert answer.get("stdout"), answer
        try:
            yield processes(f"MARK={container_id}")
        finally:
            if self._process.poll() is None:
                self._ask({"release": container_id})

    def die(self) -> None:
        """Have the server end without a chance to do anything."""
        self._process.kill()
        self._process.wait()

    def left(self) -> list[int]:
        """The processes of all functions that were started from here."""
        return processes(*[f"MARK={container_id}" for container_id in _made])

    def _order(self, container_id: str, escape: str, app: str, memory_mib: int, **more: Any) -> dict[str, Any]:
        _made.append(container_id)
        env = {"ESCAPE": escape, "MARK": container_id, **more.pop("env", {})}
        order = {"id": container_id, "image": self.image, "app": app, "memory_mib": memory_mib, "env": env, **more}
        return self._ask(order)

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def processes(*variables: str) -> list[int]:
    """Return the processes that have one of these variables, or such a text as an argument."""
    wanted = {variable.encode() for variable in variables}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            texts = (path / "environ").read_bytes() + b"\0" + (path / "cmdline").read_bytes()
            if not wanted.isdisjoint(texts.split(b"\0")):
                found.append(int(path.name))
    return found


def user_of(pid: int) -> set[int]:
    """The users of the machine that a process is: real, effective, saved, and that of files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {int(word) for name in ("Uid", "Gid", "Groups") for word in fields[name].split()}


@contextlib.contextmanager
def opened_jail(
    folder: Path,
    *,
    is_root: bool,
    function: Path = ESCAPE,
    prepared: str = "",
    images: Any = None,
    **walls: Any,
) -> Iterator[Jail]:
    """Start a server with a bundle of one function, or an image; leaving it ends it.

    Args:
        folder: An empty one.
        is_root: The server runs as root, else as an ordinary user.
        function: The function: every escape, if none is given.
        prepared: Shell commands to run first, in a mount namespace of the server's own; as root only.
        images: Names of images that bring a root file system, each with its configuration; the function is no bundle,
            but the first of them, unless an order names another.
        walls: Of the driver, in the form of JSON.
    """
    bundles = folder / "data" / "bundles"
    name = _bundle(folder, bundles, function) if images is None else _put_images(bundles, function, images)
    node = f"jail-{os.getpid()}-{'root' if is_root else 'user'}"
    command = [sys.executable, str(SERVER), str(bundles), node, json.dumps({"sandbox": "required", **walls})]
    if prepared:
        command = ["unshare", "--mount", "/bin/sh", "-ec", f'{prepared}\nexec "$@"', "prepared", *command]
    with contextlib.ExitStack() as stack:
        if not is_root:
            command = [*stack.enter_context(ordinary_user(folder)), *command]
        command = ["/bin/sh", "-c", 'trap "" HUP QUIT; exec "$@"', "as-under-nohup", *command]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        with process:
            yield Jail(process, bundles, name, is_root=is_root, has_own_root=images is not None)
            process.stdin.close()
            assert process.wait(60) in (0, -signal.SIGKILL)


def _bundle(folder: Path, bundles: Path, function: Path) -> str:
    source = folder / "escape"
    source.mkdir(exist_ok=True)
    shutil.copy(function, source / "func.py")
    (source / "func.yaml").write_text("name: escape\nruntime: python\ncmd: [python3, func.py]\n")
    func = projects.load(source)
    build_bundle(func, bundles)
    return func.image()


def _put_images(bundles: Path, function: Path, images: Mapping[str, Mapping[str, Any]]) -> str:
    store = ImageStore(bundles.with_name("images"))
    store.make()
    bundles.mkdir()
    for name, run in images.items():
        put_image(store, [_layer(function)], [name], TAR_TYPE, entrypoint=[INTERPRETER, "/function.py"], **run)
    return next(iter(images))


@functools.cache
def _layer(function: Path) -> bytes:
    return archive(*python_files(function), member("etc/passwd", b"web:x:33:34:web:/srv/web:\n", 0o600))


@contextlib.contextmanager
def ordinary_user(folder: Path, uid: int = ORDINARY_UID) -> Iterator[list[str]]:
    """Yield the start of a command that runs as a user without rights, who owns ``folder``."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    space = mounts.make([folder, ROOT, Path(sys.base_prefix)])  # it cannot enter the home of who runs the tests
    try:
        yield [
            "nsenter",
            f"--mount=/proc/{os.getpid()}/fd/{space}",
            f"--setuid={uid}",
            f"--setgid={uid}",
            "--",
        ]
    finally:
        os.close(space)
