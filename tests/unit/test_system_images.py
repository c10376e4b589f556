"""Images that bring a root file system: what their programs see is looked up in the image, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.layers import archive, entry, put_image

from hearth.drivers.local import inside, launch, starter, stored
from hearth.drivers.local.bundle import System
from hearth.drivers.local.system_images import NoProgram, User, complete, find_program, find_user
from hearth.images.errors import InvalidImage
from hearth.images.layout import ImageStore

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/web:/bin/false\nodd\n"
GROUP = "root:x:0:\nstaff:x:50:\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system, beside a file that no image may reach."""
    (tmp_path / "outside").write_text("secret")
    made = tmp_path / "root"
    for folder in ("etc", "bin", "usr/bin", "app"):
        (made / folder).mkdir(parents=True)
    (made / "etc" / "passwd").write_text(PASSWD)
    (made / "etc" / "group").write_text(GROUP)
    return made


def program(path: Path, content: bytes = b"#!/bin/sh\n", mode: int = 0o755) -> None:
    path.write_bytes(content)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("links", "path", "meant"),
    [
        ({}, "/etc/passwd", "/etc/passwd"),
        ({}, "etc//./passwd", "/etc/passwd"),
        ({}, "/../../etc/../bin/x", "/bin/x"),
        ({"up": "../../.."}, "/up/outside", "/outside"),
        ({"lib": "usr/lib"}, "/lib/x", "/usr/lib/x"),
        ({"a": "/b/c", "b": "etc"}, "/a", "/etc/c"),
        ({"usr/own": "/etc/x"}, "/usr/own/../passwd", "/etc/passwd"),
        ({"a": "b", "b": "/etc/../a/.."}, "/x/../b/x", None),
        ({"loop": "loop"}, "/loop/x", None),
    ],
)
def test_links_lead_to_the_images_own_files(root: Path, links: dict[str, str], path: str, meant: str | None) -> None:
    for name, target in links.items():
        (root / name).symlink_to(target)
    if meant is None:
        with pytest.raises(OSError, match="Too many levels"):
            inside.follow(root, path)
    else:
        assert inside.follow(root, path) == PurePosixPath(meant)


_PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", "/", "outside", "root"])
_PATHS = st.lists(_PARTS, max_size=5).map("/".join)


@given(links=st.lists(st.tuples(_PATHS, _PATHS), max_size=6), path=_PATHS)
@settings(max_examples=150, deadline=None)
def test_no_links_make_or_find_anything_outside(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[str, str]], path: str
) -> None:
    folder = tmp_path_factory.mktemp("links")
    (folder / "outside").write_text("secret")
    root = folder / "root"
    root.mkdir()
    for name, target in links:
        place = root.joinpath(*[part for part in name.split("/") if part in ("a", "b", "c")])
        in_root = place.parent.is_dir() and place.parent.resolve().is_relative_to(root)
        if target and place != root and in_root and not os.path.lexists(place):
            place.symlink_to(target)
    with contextlib.suppress(OSError, InvalidImage):  # too many links
        found = inside.place(root, path)
        assert found.resolve().is_relative_to(root)
        inside.make_folder(root, inside.follow(root, path))
        assert inside.place(root, path).is_dir()
        complete(root, System(workdir=path or "/", volumes=[f"{path}/v"]), "image")
    assert sorted(os.listdir(folder)) == ["outside", "root"]
    assert (folder / "outside").read_text() == "secret"
    shutil.rmtree(folder)


def test_places_of_mounts_are_never_links(root: Path) -> None:
    (root / "tmp").symlink_to("../outside-tmp")
    (root / "run").symlink_to("/proc")
    (root / "proc").write_text("a file")
    (root / "etc" / "resolv.conf").symlink_to("../../outside")
    (root / "var").symlink_to("usr")
    found = complete(root, System(user="web", workdir="app/../var/new", volumes=["/var/data"]), "image")
    assert found == System(user="web", workdir="/usr/new", volumes=["/usr/data"])
    for name in ("tmp", "run", "run/secrets", "proc", "dev", "usr/new", "usr/data"):
        assert (root / name).is_dir(), name
        assert not (root / name).is_symlink(), name
    assert (root / "etc" / "resolv.conf").read_text() == ""
    assert (root.parent / "outside").read_text() == "secret"
    assert not (root.parent / "outside-tmp").exists()
    assert (root / "etc" / "passwd").read_text() == PASSWD


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        (System(volumes=["/"]), "the volume / hides the image"),
        (System(volumes=["/x/.."]), "the volume / hides the image"),
        (System(workdir="/loop"), "Too many levels of symbolic links"),
        (System(workdir="/" + "x" * 300), "File name too long"),
    ],
)
def test_a_place_that_cannot_be_made_is_the_images_fault(root: Path, system: System, reason: str) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(InvalidImage, match=reason):
        complete(root, system, "image")


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, "/root")),
        ("web", User(33, 34, "/srv/web")),
        ("33", User(33, 34, "/srv/web")),
        ("web:staff", User(33, 50, "/srv/web")),
        ("web:0", User(33, 0, "/srv/web")),
        ("1000", User(1000, 0, "/")),
        ("1000:1000", User(1000, 1000, "/")),
        (":staff", User(0, 50, "/root")),
    ],
)
def test_a_user_is_a_number_or_a_name_of_the_image(root: Path, text: str, user: User) -> None:
    assert find_user(root, text) == user


@pytest.mark.parametrize("text", ["nobody", "web:nogroup", "4294967295", "-1", "99999999999", "odd", "\0"])
def test_a_user_that_the_image_does_not_know_is_named(root: Path, text: str) -> None:
    with pytest.raises(NoProgram, match="of the image"):
        find_user(root, text)


def test_an_image_without_names_has_numbers(tmp_path: Path) -> None:
    assert find_user(tmp_path, "") == User(0, 0, "/")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").symlink_to("/etc/passwd")
    assert find_user(tmp_path, "") == User(0, 0, "/")
    os.remove(tmp_path / "etc" / "passwd")
    os.mkfifo(tmp_path / "etc" / "passwd")
    assert find_user(tmp_path, "7") == User(7, 0, "/")


def elf(machine: int, loader: str) -> bytes:
    """The beginning of a program for a processor that a loader of this path loads."""
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, len(loader) + 1, 1)
    return header + segment + loader.encode() + b"\0"


def test_a_program_is_found_as_the_image_shows_it(root: Path) -> None:
    program(root / "usr" / "bin" / "tool", elf({"x86_64": 62, "aarch64": 183}[platform.machine()], ""))
    program(root / "app" / "run", b"#!/bin/sh -e\n")
    program(root / "bin" / "sh", b"")
    program(root / "bin" / "tool", mode=0o644)
    (root / "sbin").symlink_to("usr/bin")
    search = "/bin:/sbin"
    assert find_program(root, ["tool"], "/app", search) == "/sbin/tool"
    assert find_program(root, ["./run"], "/app", search) == "/app/run"
    assert find_program(root, ["/sbin/tool"], "/", search) == "/sbin/tool"
    assert find_program(root, ["run"], "/app", "") == "/app/run"


@pytest.mark.parametrize(
    ("cmd", "reason"),
    [
        ([""], "no command specified"),
        (["missing"], "missing: no such file or directory"),
        (["/missing"], "/missing: no such file or directory"),
        (["../../outside"], "no such file or directory"),
        (["/escape"], "no such file or directory"),
        (["/bin"], "/bin: is a directory"),
        (["/plain"], "/plain: permission denied"),
        (["plain"], "plain: permission denied"),
        (["/loop"], "Too many levels of symbolic links"),
        (["/script"], "/script: its interpreter /bin/none is not in the image"),
        (["/dos"], "/dos: its first line ends in CR LF"),
        (["/linked"], "/linked: its interpreter /lib/ld.so is not in the image"),
        (["/other"], "/other: built for another processor"),
        (["a\0b"], "embedded null byte"),
        (["x" * 300], "xxx: File name too long"),
    ],
)
def test_a_program_that_cannot_run_says_why(root: Path, cmd: list[str], reason: str) -> None:
    machine = {"x86_64": 62, "aarch64": 183}[platform.machine()]
    program(root / "plain", mode=0o644)
    program(root / "script", b"#!/bin/none\n")
    program(root / "dos", b"#!/bin/sh\r\n")
    program(root / "linked", elf(machine, "/lib/ld.so"))
    program(root / "other", elf(machine + 1, ""))
    (root / "escape").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to("loop")
    with pytest.raises(NoProgram) as caught:
        find_program(root, cmd, "/app", "/bin:/")
    assert reason in str(caught.value)


@given(head=st.binary(max_size=200).map(lambda data: b"\x7fELF\x02\x01" + data))
@settings(max_examples=200, deadline=None)
def test_no_program_breaks_the_one_who_looks_at_it(tmp_path_factory: pytest.TempPathFactory, head: bytes) -> None:
    folder = tmp_path_factory.mktemp("program")
    program(folder / "p", head)
    with contextlib.suppress(NoProgram):
        assert find_program(folder, ["/p"], "/", "") == "/p"
    shutil.rmtree(folder)


def test_an_image_is_unpacked_to_its_root(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    store.make()
    lower = archive(entry("etc/old", b"x"), entry("bin/sh", b"x", mode=0o4755), entry("bundle.json", b"own"))
    upper = archive(entry("etc/.wh.old"), entry("srv/data", b"x"))
    run: dict[str, Any] = {
        "entrypoint": ["/bin/sh"],
        "cmd": ["-c", "true"],
        "env": ["A=b=c"],
        "user": "7:8",
        "working_dir": "srv",
        "volumes": {"/srv/data2": {}},
    }
    digest = put_image(store, [lower, upper], ["full:1"], **run)
    found = stored.find(tmp_path / "bundles", "full:1")
    assert found is not None
    assert found.manifest.content == digest
    assert found.manifest.cmd == ["/bin/sh", "-c", "true"]
    assert found.manifest.env == {"A": "b=c"}
    assert found.manifest.system == System(user="7:8", workdir="/srv", volumes=["/srv/data2"])
    assert sorted(os.listdir(found.root)) == ["bin", "bundle.json", "dev", "etc", "proc", "run", "srv", "tmp"]
    assert sorted(os.listdir(found.root / "etc")) == ["hosts", "resolv.conf"]
    assert (found.root / "bundle.json").read_text() == "own"
    assert (found.root / "bin" / "sh").stat().st_mode & 0o7777 == 0o755
    layers = tmp_path / "bundles" / ".layers"
    assert len(os.listdir(layers)) == 2
    assert (found.root / "bin" / "sh").stat().st_nlink == 2, "images share the files of their layers"


def test_what_fails_while_it_is_unpacked_leaves_nothing(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    store.make()
    put_image(store, [archive(entry("f", b"x"))], ["full:1"], entrypoint=["/f"], volumes={"/": {}})
    with pytest.raises(InvalidImage, match="hides the image"):
        stored.find(tmp_path / "bundles", "full:1")
    assert [path.name for path in (tmp_path / "bundles" / "full").iterdir()] == []


SHOWN = """
import json, os, resource, sys
found = {"args": sys.argv, "env": dict(os.environ), "processes": resource.getrlimit(resource.RLIMIT_NPROC)}
found["descriptors"] = [fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")]
json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("processes", [0, 77777])
def test_the_starter_lays_out_pipes_and_environment(processes: int) -> None:
    opened = starter.open_program()
    assert opened is not None
    cmd = ["python", "-SEc", SHOWN, "argument"]
    argv = starter.wrap(cmd, sys.executable, processes=processes)
    env = {"HEARTH_0": "A.b=c=d", "HEARTH_12": "E=", "PATH": "/launch", "HEARTHX": "no", "HEARTH": "no"}
    script = f'exec "$@" {launch.STARTER}</proc/self/fd/{opened} 3</dev/null 4>&1 5>&2 7</dev/null'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "x", *argv], env=env, capture_output=True, pass_fds=[opened], text=True
    )
    os.close(opened)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["args"] == ["-c", "argument"]
    assert {name: told["env"][name] for name in ("A.b", "E")} == {"A.b": "c=d", "E": ""}
    assert set(told["env"]) <= {"A.b", "E", "LC_CTYPE"}
    assert told["descriptors"] == [0, 1, 2]
    assert not processes or told["processes"] == [processes, processes]


@pytest.mark.parametrize(("path", "code"), [("/no/such/file", 127), ("/etc/passwd", 126), ("/", 126)])
def test_the_starter_ends_where_there_is_no_program(path: str, code: int) -> None:
    opened = starter.open_program()
    assert opened is not None
    argv = starter.wrap(["x"], path)
    script = f'exec "$@" {launch.STARTER}</proc/self/fd/{opened}'
    done = subprocess.run(["/bin/sh", "-c", script, "x", *argv], pass_fds=[opened])
    os.close(opened)
    assert done.returncode == code
