"""Root file systems that images bring: who a function is there, and what it may write, on either kind of node."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.jails import Jail, opened_jail

FUNCTION = Path(__file__).parents[2] / "functions" / "python_text.py"
RUN = {"working_dir": "/srv/work", "env": ["COLOUR=blue", "PATH=/opt/bin"], "volumes": {"/var/data": {}}}
KINDS = ("root", "ordinary user")

WHO = """
found = {"ids": [os.getuid(), os.getgid()], "cwd": os.getcwd(), "cmdline": open("/proc/self/cmdline").read()}
found["env"] = {name: os.environ.get(name) for name in ("HOME", "PATH", "COLOUR", "HOSTNAME")}
"""
CHANGES = """
os.rename("/function.py", "/moved.py")
os.makedirs("/etc/more/folders")
os.chmod("/srv", 0o700)
os.remove("/etc/passwd")
os.mkdir("/etc/passwd")
paths = ("/new", "/moved.py", "/srv/work/new", "/var/data/new", "/tmp/new")
found = {path: tried(lambda: write(path)) for path in paths}
"""
LOOK = """
found = {path: tried(lambda: os.stat(path)) for path in ("/new", "/moved.py", "/function.py", "/var/data/new")}
found["passwd"] = open("/etc/passwd").read()
found["written"] = {path: tried(lambda: write(path)) for path in ("/new", "/srv/work/new", "/etc/passwd", "/tmp/new")}
found["written"]["volume"] = tried(lambda: write("/var/data/new"))
found["written"]["hosts"] = tried(lambda: write("/etc/hosts"))
"""


@contextlib.contextmanager
def jail_of(kind: str, folder: Path, **more: Any) -> Iterator[Jail]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if os.geteuid() != 0:
        pytest.skip("the server is started as other users")
    images = {f"{user or 'none'}:1": {**RUN, "user": user} for user in ("web", "", "nobody-here")}
    more = {"network": "none", **more}
    with opened_jail(folder, is_root=kind == "root", function=FUNCTION, images=images, **more) as opened:
        if "unavailable" in opened.capabilities:
            pytest.skip(opened.capabilities["unavailable"])
        yield opened


@pytest.fixture(scope="module", params=KINDS)
def jail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    with jail_of(request.param, tmp_path_factory.mktemp("roots")) as opened:
        yield opened


def state(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What there is to change of files."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path: (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_uid) for path, info in found.items()
    }


def told(jail: Jail, text: str, **more: Any) -> Any:
    return jail.run("", env={"TEXT": text, **more.pop("env", {})}, **more).told


def test_a_function_is_who_the_image_says_where_it_says(jail: Jail) -> None:
    found = told(jail, WHO, env={"COLOUR": "red"})
    assert found["ids"] == [33, 34]
    assert found["cwd"] == "/srv/work"
    assert found["env"] == {"HOME": "/srv/web", "PATH": "/opt/bin", "COLOUR": "red", "HOSTNAME": "function"}


def test_an_ordinary_user_s_function_writes_to_its_root_in_a_network_of_its_own(tmp_path: Path) -> None:
    with jail_of("ordinary user", tmp_path, network="internet") as jail:
        assert told(jail, 'found = {"/new": tried(lambda: write("/new"))}') == {"/new": "done"}


def test_what_a_function_writes_to_its_root_ends_with_its_container(jail: Jail) -> None:
    (files,) = jail.bundles.glob("web/.sha256-*/root")
    before = state(files)
    assert set(told(jail, CHANGES).values()) == {"done"}
    found = told(jail, LOOK)
    assert found["passwd"].startswith("web:x:33")
    assert [found[path] for path in ("/new", "/moved.py", "/function.py", "/var/data/new")] == [
        *["ENOENT"] * 2,
        "done",
        "ENOENT",
    ]
    assert state(files) == before
    assert [path.name for path in jail.bundles.glob(".layers/*") if not path.name.startswith("sha256-")] == []


def test_what_a_function_writes_to_its_root_is_its_memory(jail: Jail) -> None:
    text = "with open('/filled', 'wb', 0) as file:\n for _ in range(1000): file.write(bytes(1 << 20))"
    ran = jail.run("", env={"TEXT": f"found['result'] = tried(lambda: exec({text!r}))"}, memory_mib=48)
    assert ran.oom if jail.limits_memory else ran.told == {"result": "ENOSPC"}


def test_a_file_of_a_container_is_no_program_with_rights(jail: Jail) -> None:
    text = """
import shutil
os.chmod("/function.py", 0o4755)
found["owner"] = tried(lambda: os.chown("/function.py", 12345, 12345))
found["device"] = tried(lambda: os.mknod("/disk", 0o60666, os.makedev(8, 0)))
found["options"] = [line.split()[3].split(",") for line in open("/proc/self/mounts") if line.split()[1] == "/"]
"""
    found = told(jail, text)
    assert found["owner"] != "done"
    assert found["device"] == "EPERM"
    assert all({"nosuid", "nodev"} <= set(options) for options in found["options"])


def test_an_operator_denies_images_their_user_and_their_files(tmp_path: Path) -> None:
    with jail_of("root", tmp_path, read_only=True, unprivileged=True) as jail:
        assert told(jail, WHO, image="none:1")["ids"] == [1000, 1000]
        found = told(jail, LOOK, image="none:1")
    written = found["written"]
    assert [written.pop(name) for name in ("/tmp/new", "volume")] == ["done", "done"]
    assert set(written.values()) <= {"EROFS", "EACCES"}, written


def test_an_image_without_a_user_is_root_without_rights(jail: Jail) -> None:
    text = """
found["ids"] = [os.getuid(), os.getgid()]
found["caps"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]
found["become"] = tried(lambda: os.setuid(33))
found["root"] = tried(lambda: os.chroot("/srv"))
found["written"] = tried(lambda: write("/etc/passwd"))
"""
    found = told(jail, text, image="none:1")
    assert found["ids"] == [0, 0]
    assert set(found["caps"]) == {"0" * 16}
    assert (found["become"], found["root"], found["written"]) == ("EINVAL", "EPERM", "done")


def test_a_user_that_the_image_does_not_have_is_named(jail: Jail) -> None:
    assert "'nobody-here' is not in /etc/passwd of the image" in jail.run("", image="nobody-here:1").error


def test_without_a_sandbox_an_image_with_files_of_its_own_does_not_run(tmp_path: Path) -> None:
    with jail_of("ordinary user", tmp_path, sandbox="off", network=None) as jail:
        assert "needs a sandbox on this node: FN_SANDBOX=off" in jail.run("").error
