"""Building bundles: what goes wrong is said in a sentence, and what was built stays whole."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hearth import projects
from hearth.drivers.local import bundle
from hearth.drivers.local.build import build_bundle
from hearth.projects import ProjectError

HEARTH = Path(sys.executable).with_name("hearth")
HANDLER = "from hearth_fdk import function\n\n@function\ndef handle(body: dict) -> dict:\n    return body\n"


def function(folder: Path, recipe: str | None, **files: str) -> Path:
    """A function's folder."""
    folder.mkdir()
    if recipe is not None:
        (folder / "func.yaml").write_text(recipe)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def build(source: Path, bundles: Path) -> tuple[str, bundle.Bundle]:
    """The reference and the bundle of a folder."""
    func = projects.load(source)
    return func.image(), build_bundle(func, bundles)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (None, "func.yaml: not found; a function's folder holds a func.yaml (hearth init)"),
        ("name: Hello World\ncmd: [cat]\n", "func.yaml:1: name: 'Hello World' is no image name"),
        ("name: ../up\ncmd: [cat]\n", "func.yaml:1: name: '../up' is no image name"),
        ("name: f\nversion: a/b\ncmd: [cat]\n", "func.yaml:2: version: 'a/b' is no tag"),
        ("name: f\n", "cmd: missing; runtime exec needs cmd"),
        ("name: f\nruntime: cobol\n", "not 'cobol'"),
        ("name: [", "func.yaml:1: expected the node content"),
        ("just text", "expected fields (name: value), not a text"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, recipe: str | None, sentence: str) -> None:
    source = function(tmp_path / "f", recipe)
    with pytest.raises(ProjectError) as failed:
        build(source, tmp_path / "bundles")
    assert sentence in str(failed.value)
    assert str(source) in str(failed.value)
    assert [path for path in (tmp_path / "bundles").rglob("*") if path.is_file()] == []


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [HEARTH, "build", tmp_path], capture_output=True, text=True, env={"FN_DATA_DIR": str(tmp_path / "data")}
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"hearth: {tmp_path}/func.yaml: not found; a function's folder holds a func.yaml (hearth init)\n"
    )


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\ncmd: [cat]\n")
    (tmp_path / "bundles").write_text("a file")
    with pytest.raises(ProjectError, match=r"bundles/f/latest: .*; the bundle was not built"):
        build(source, tmp_path / "bundles")


def test_requirements_that_fail_are_said_and_leave_nothing(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\nruntime: python\n", func_py=HANDLER, requirements_txt="./nowhere\n")
    with pytest.raises(ProjectError, match=r"requirements.txt: cannot be installed: ERROR: .*nowhere"):
        build(source, tmp_path / "bundles")
    assert list((tmp_path / "bundles").iterdir()) == []
    assert list((tmp_path / "images" / "uploads").iterdir()) == []


def test_a_file_that_cannot_be_copied_is_said_in_one_line(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\ncmd: [cat]\n")
    (source / "gone").symlink_to("nowhere")
    with pytest.raises(ProjectError) as refused:
        build(source, tmp_path / "bundles")
    assert str(refused.value).startswith(f"{source}/gone: cannot be copied: No such file or directory")


def test_a_rebuild_moves_the_tag_and_leaves_the_bundle_before_as_it_was(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: team/f\nversion: '2'\ncmd: [cat]\n", old_txt="old")
    reference, first = build(source, tmp_path / "bundles")
    (source / "old.txt").unlink()
    (source / "new.txt").write_text("new")
    again, second = build(source, tmp_path / "bundles")
    assert reference == again == "team/f:2"
    assert {path.name for path in first.files.iterdir()} == {"func.yaml", "old.txt"}
    place = bundle.locate(tmp_path / "bundles", reference)
    assert place is not None
    assert second.folder == place.resolve()
    assert {path.name for path in second.files.iterdir()} == {"func.yaml", "new.txt"}
    assert {path for path in place.parent.iterdir() if path.is_dir()} == {place, first.folder, second.folder}
    pinned = bundle.locate(tmp_path / "bundles", first.pin(reference))
    assert pinned == first.folder


def test_unused_bundles_are_pruned_and_those_in_use_stay(tmp_path: Path) -> None:
    source, store = function(tmp_path / "f", "name: team/f\ncmd: [cat]\n"), tmp_path / "bundles"
    builds = []
    for number in range(4):
        (source / "func.yaml").write_text(f"name: team/f\nversion: {number}\ncmd: [cat]\n")
        builds.append(build(source, store))
    (_, held_bundle), (pinned, routed), (tagged, by_tag), (_, unused) = builds
    descriptor = held_bundle.hold()
    assert descriptor is not None
    used = {routed.pin(pinned), tagged, "some/image:outside"}
    assert bundle.prune(store, used, before=0) == []  # all of them are too new
    assert bundle.prune(store, used, before=math.inf) == [unused.folder]
    assert [one.folder.exists() for _, one in builds] == [True, True, True, False]
    assert bundle.load(store / "team" / "f" / "3") is None
    assert not (store / "team" / "f" / "3").is_symlink()
    os.close(descriptor)
    assert bundle.prune(store, used, before=math.inf) == [held_bundle.folder]
    assert held_bundle.hold() is None
    assert bundle.load(store / "team" / "f" / "2").folder == by_tag.folder  # type: ignore[union-attr]
    assert build(source, store)[1].folder == unused.folder  # what was pruned can be built again


def test_a_bundle_of_an_earlier_version_runs_until_its_tag_is_built_again(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\ncmd: [cat]\n")
    _, made = build(source, tmp_path / "bundles")
    place = tmp_path / "bundles" / "f" / "latest"
    place.unlink()
    made.folder.rename(place)
    assert bundle.load(place) is not None
    (source / "new.txt").touch()
    build(source, tmp_path / "bundles")
    assert place.is_symlink()
    bundle.prune(tmp_path / "bundles", {"f:latest"}, before=math.inf)
    assert {path for path in place.parent.iterdir() if path.is_dir()} == {place, place.resolve()}


def test_two_functions_of_one_name_and_version_are_two_bundles(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        source = function(tmp_path / f"f{number}", "name: f\nversion: 0.0.2\ncmd: [cat]\n", part_txt=str(number))
        reference, built = build(source, tmp_path / "bundles")
        made.append(built.pin(reference))
    texts = [bundle.load(bundle.locate(tmp_path / "bundles", pinned)).files / "part.txt" for pinned in made]  # type: ignore
    assert [text.read_text() for text in texts] == ["1", "2"]
    assert (tmp_path / "bundles" / "f" / "0.0.2" / "function" / "part.txt").read_text() == "2"


def test_builds_of_one_name_at_once_leave_one_whole_bundle(tmp_path: Path) -> None:
    count = 8
    for number in range(count):
        folder = function(tmp_path / f"f{number}", "name: f\ncmd: [cat]\n")
        for part in range(20):
            (folder / f"part{part}").write_text(str(number))
    failures: list[BaseException] = []
    together = threading.Barrier(count)

    def work(number: int) -> None:
        try:
            together.wait()
            for _ in range(5):
                build(tmp_path / f"f{number}", tmp_path / "bundles")
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    folder = tmp_path / "bundles" / "f" / "latest"
    built = bundle.load(folder)
    assert built is not None
    assert len({(built.files / f"part{part}").read_text() for part in range(20)}) == 1
    bundle.prune(tmp_path / "bundles", {"f"}, before=math.inf)
    assert {path for path in folder.parent.iterdir() if path.is_dir()} == {folder, folder.resolve()}


@pytest.mark.parametrize(
    "image",
    [
        "",
        "..",
        "a/../b",
        "/etc",
        "a:../b",
        "A",
        "a:b:c",
        "a//b",
        "a:" + "x" * 200,
        "a/.sha256-" + "0" * 64,
        "a@sha256:0",
    ],
)
def test_a_reference_never_leaves_the_store(tmp_path: Path, image: str) -> None:
    assert bundle.locate(tmp_path, image) is None


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"cmd": "cat"}'])
def test_a_folder_with_a_bad_manifest_is_no_bundle(tmp_path: Path, text: str) -> None:
    (tmp_path / bundle.MANIFEST).write_text(text)
    assert bundle.load(tmp_path) is None


def test_the_content_tells_whether_a_rebuild_changed_anything(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\ncmd: [cat]\n", part_txt="one")
    _, first = build(source, tmp_path / "bundles")
    _, same = build(source, tmp_path / "bundles")
    (source / "part.txt").write_text("two")
    _, other = build(source, tmp_path / "bundles")
    assert first.manifest.content == same.manifest.content != other.manifest.content


def test_build_commands_run_first_and_a_failed_one_keeps_the_former_bundle(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\ncmd: [cat]\nbuild: [echo made >made.txt]\n")
    reference, made = build(source, tmp_path / "bundles")
    assert (made.files / "made.txt").read_text() == "made\n"
    (source / "func.yaml").write_text("name: f\ncmd: [cat]\nbuild: [rm made.txt, 'exit 3']\n")
    with pytest.raises(ProjectError, match="build: 'exit 3' ended with status 3"):
        build(source, tmp_path / "bundles")
    folder = bundle.locate(tmp_path / "bundles", reference)
    assert folder is not None
    assert (folder / "function" / "made.txt").exists()


def test_a_function_with_a_dockerfile_is_no_bundle(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\nruntime: docker\n")
    with pytest.raises(ProjectError, match="becomes an image"):
        build(source, tmp_path / "bundles")


def test_a_path_is_run_by_itself(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "cmd: [./func.py]\n", func_py="#!/usr/bin/env python3\n")
    with pytest.raises(ProjectError, match=r"func.yaml:1: cmd: ./func.py: permission denied; make it executable"):
        build(source, tmp_path / "bundles")
    (source / "func.py").chmod(0o755)
    assert build(source, tmp_path / "bundles")[1].manifest.cmd == ["./func.py"]


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        ("runtime: python\n", ["-m", "hearth_fdk", "func.py"]),
        ("runtime: python3\ncmd: main.py --fast\n", ["-m", "hearth_fdk", "main.py", "--fast"]),
        ("runtime: python\nentrypoint: python3 func.py\n", ["func.py"]),
    ],
)
def test_a_python_function_runs_with_the_python_that_built_it(tmp_path: Path, recipe: str, command: list[str]) -> None:
    served = f"{HANDLER}import hearth_fdk\nhearth_fdk.run(handle)\n"
    _, made = build(function(tmp_path / "f", recipe, func_py=served, main_py=HANDLER), tmp_path / "bundles")
    assert made.manifest.cmd[1:] == command
    assert Path(made.manifest.cmd[0]).exists()
    assert (made.folder / "packages" / "hearth_fdk" / "__init__.py").exists()


def test_what_a_python_function_imports_is_compiled_and_not_part_of_what_identifies_it(tmp_path: Path) -> None:
    source = function(
        tmp_path / "f", "name: f\nruntime: python\n", func_py=HANDLER, own_py="X = 1\n", broken_py="X = = 1\n"
    )
    _, first = build(source, tmp_path / "bundles")
    compiled = {path.name.partition(".")[0] for path in first.folder.rglob("*.pyc")}
    assert {"own", "serving"} <= compiled
    _, second = build(source, tmp_path / "bundles")
    assert first.manifest.content == second.manifest.content


def test_an_editable_requirement_is_refused_with_its_line(tmp_path: Path) -> None:
    files = {"func_py": HANDLER, "requirements_txt": "# ours\n-r more.txt\n", "more_txt": "six\n--editable=./lib\n"}
    source = function(tmp_path / "f", "name: f\nruntime: python\n", **files)
    with pytest.raises(ProjectError, match=r"more.txt:2: --editable=./lib: .* write ./lib to install it plainly"):
        build(source, tmp_path / "bundles")
    (source / "requirements.txt").write_text("-e ./lib\n")
    with pytest.raises(ProjectError, match=r"requirements.txt:1: -e ./lib: an editable install stays in a folder"):
        build(source, tmp_path / "bundles")


@pytest.mark.parametrize(
    ("recipe", "script", "told"),
    [
        ("cmd: [no-such-program]\n", "", "func.yaml:1: cmd: no-such-program: no such file or directory"),
        ("entrypoint: ./run.sh\n", "#!/no/such/shell\n", "./run.sh: its interpreter /no/such/shell does not exist"),
        ("entrypoint: ./run.sh\n", "#!/bin/sh\r\necho\r\n", "./run.sh: its first line ends in CR LF"),
    ],
)
def test_a_command_that_cannot_run_is_refused(tmp_path: Path, recipe: str, script: str, told: str) -> None:
    source = function(tmp_path / "f", recipe)
    (source / "run.sh").write_bytes(script.encode())
    (source / "run.sh").chmod(0o755)
    with pytest.raises(ProjectError) as refused:
        build(source, tmp_path / "bundles")
    assert told in str(refused.value)


def test_a_bundle_of_an_earlier_version_has_the_environment_that_it_was_built_for(tmp_path: Path) -> None:
    old = {"cmd": ["python3", "func.py"], "env": {"PYTHONPATH": "../packages"}, "content": "0" * 32}
    (tmp_path / bundle.MANIFEST).write_text(json.dumps(old))
    found = bundle.load(tmp_path)
    assert found is not None
    assert found.environment({"PATH": "/bin"}, {"A": "b"}) == {"PATH": "/bin", "PYTHONPATH": "../packages", "A": "b"}


def test_folders_of_the_bundle_come_before_those_of_the_route(tmp_path: Path) -> None:
    _, made = build(function(tmp_path / "f", "runtime: python\n", func_py=HANDLER), tmp_path / "bundles")
    found = made.environment({"PATH": "/bin"}, {"PYTHONPATH": "/own"})
    assert found["PATH"] == f"{made.folder}/packages/bin:/bin"
    assert found["PYTHONPATH"] == f"{made.folder}/function:{made.folder}/packages:/own"


def test_the_bundled_func_yaml_has_the_version_that_was_built(tmp_path: Path) -> None:
    source = function(tmp_path / "f", "name: f\nversion: 0.0.1\ncmd: [cat]\n")
    func = dataclasses.replace(projects.load(source), version="0.0.2")
    made = build_bundle(func, tmp_path / "bundles")
    assert "version: 0.0.2\n" in (made.files / "func.yaml").read_text()
    assert "version: 0.0.1\n" in (source / "func.yaml").read_text()


def test_a_deploy_leaves_a_tag_that_leads_to_another_build(tmp_path: Path) -> None:
    """Routes that were deployed before references had digests follow their tag."""
    texts = []
    for number in (1, 2):
        recipe = "name: f\nversion: 0.0.2\ncmd: [cat]\n"
        source = function(tmp_path / f"f{number}", recipe, part_txt=str(number))
        built = build_bundle(projects.load(source), tmp_path / "bundles", moves_tag=False)
        texts.append((built.files / "part.txt").read_text())
    assert texts == ["1", "2"]
    assert (tmp_path / "bundles" / "f" / "0.0.2" / "function" / "part.txt").read_text() == "1"
