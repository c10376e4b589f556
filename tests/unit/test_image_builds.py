"""A folder becomes an image: the same input the same one, from layers that functions share."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.support.layers import archive, entry, put_image

from hearth import projects
from hearth.drivers.local import bundle, stored
from hearth.drivers.local.build import build_bundle
from hearth.drivers.local.bundle import Bundle
from hearth.images.errors import InvalidImage
from hearth.images.layout import Image, ImageStore
from hearth.projects import ProjectError, staging

HANDLER = "from hearth_fdk import function\n\n@function\ndef handle(body: dict) -> dict:\n    return body\n"


def wheel(folder: Path, name: str, version: str, source: str) -> Path:
    """A wheel with one module."""
    files = {
        f"{name}.py": source,
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = io.StringIO()
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        csv.writer(rows).writerow([path, f"sha256={digest}", len(text)])
    csv.writer(rows).writerow([f"{name}-{version}.dist-info/RECORD", "", ""])
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as out:
        for path, text in (*files.items(), (f"{name}-{version}.dist-info/RECORD", rows.getvalue())):
            out.writestr(zipfile.ZipInfo(path), text)  # without a time
    return made


def function(folder: Path, name: str = "f", requirements: str = "", **files: str) -> Path:
    """The folder of a Python function, with the wheels that it requires."""
    folder.mkdir(parents=True)
    (folder / "func.yaml").write_text(f"name: {name}\nversion: '1'\nruntime: python\n")
    (folder / "func.py").write_text(HANDLER)
    for file, text in files.items():
        (folder / file.replace("_py", ".py")).write_text(text)
    if requirements:
        (folder / "requirements.txt").write_text(requirements)
        wheel(folder / "wheels", "six_pack", "1.0", "ONE = 1\n")
    return folder


def build(folder: Path, data: Path, **options: Any) -> Bundle:
    return build_bundle(projects.load(folder), data / "bundles", **options)


def image_of(data: Path, reference: str) -> Image:
    store = ImageStore(data / "images")
    digest = store.resolve(reference)
    assert digest is not None
    return store.image(digest)


def test_the_same_folder_becomes_the_same_image_in_every_store(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = function(tmp_path / str(number) / "f", requirements="six_pack\n", more_py="X = {'a', 'b'}\n")
        os.utime(folder / "func.py", (number, number))
        (folder / "func.py").chmod(0o600 if number == 1 else 0o664)
        made.append(build(folder, tmp_path / f"data{number}").manifest.content)
    assert made[0] == made[1]
    (tmp_path / "2" / "f" / "func.py").write_text(HANDLER + "\n")
    assert build(tmp_path / "2" / "f", tmp_path / "data2").manifest.content != made[0]


def test_an_image_says_how_it_runs(tmp_path: Path) -> None:
    made = build(function(tmp_path / "f", name="team/f"), tmp_path / "data")
    image = image_of(tmp_path / "data", "team/f:1")
    run = image.config.config
    assert run is not None
    assert image.digest == made.manifest.content
    assert run.entrypoint is not None
    assert run.entrypoint == [Path(made.manifest.cmd[0]).name, "-m", "hearth_fdk", "func.py"]
    assert str(tmp_path) not in str(image.config)
    assert sys.base_prefix not in str(image.config)
    assert run.working_dir == "/function"
    assert "PYTHONUNBUFFERED=1" in (run.env or ())
    assert image.config.labels["io.hearth.base"] == "host"
    assert stored.manifest_of(image) == made.manifest
    assert list(ImageStore(tmp_path / "data" / "images").verify()) == []


def test_functions_share_the_layer_of_equal_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    first = build(function(tmp_path / "one" / "a", "a", "six_pack\n"), data)

    def refuse(*args: object) -> dict[str, str]:
        raise ProjectError("installed again")

    monkeypatch.setattr(staging, "install_requirements", refuse)
    second = build(function(tmp_path / "two" / "b", "b", "six_pack\n", own_py="B = 1\n"), data)
    lower, upper = image_of(data, "a:1").manifest.layers
    other = image_of(data, "b:1").manifest.layers
    assert lower == other[0]
    assert upper != other[1]
    module = Path("packages", "six_pack.py")
    assert (first.folder / module).samefile(second.folder / module)
    assert (second.folder / module).stat().st_nlink == 3  # the layer's, and one of each bundle
    with pytest.raises(ProjectError, match="installed again"):
        build(tmp_path / "two" / "b", data, upgrade=True)


@pytest.mark.parametrize("changed", ["requirements.txt", "wheels", "included", "folder"])
def test_changed_requirements_are_installed_again(tmp_path: Path, changed: str) -> None:
    folder = function(tmp_path / "f", requirements="six_pack\n-r more.txt\n")
    (folder / "more.txt").write_text("# nothing\n")
    library = folder / "lib"
    library.mkdir()
    (library / "own.py").write_text("OWN = 1\n")
    (library / "pyproject.toml").write_text(
        "[project]\nname='own'\nversion='1'\n[build-system]\nrequires=[]\nbuild-backend='backend'\nbackend-path=['.']\n"
    )
    (library / "backend.py").write_text(BACKEND)
    (folder / "more.txt").write_text("./lib\n")
    before = build(folder, tmp_path / "data")
    assert (before.folder / "packages" / "own.py").read_text() == "OWN = 1\n"
    match changed:
        case "requirements.txt":
            (folder / "requirements.txt").write_text("-r more.txt\n")
        case "wheels":
            wheel(folder / "wheels", "six_pack", "1.1", "ONE = 2\n")
        case "included":
            (folder / "more.txt").write_text("")
        case "folder":
            (library / "own.py").write_text("OWN = 2\n")
    after = build(folder, tmp_path / "data")
    packages = after.folder / "packages"
    assert (packages / "six_pack.py").exists() == (changed != "requirements.txt")
    assert (packages / "own.py").exists() == (changed != "included")
    assert changed != "wheels" or (packages / "six_pack.py").read_text() == "ONE = 2\n"
    assert changed != "folder" or (packages / "own.py").read_text() == "OWN = 2\n"
    assert not list(packages.glob("*/direct_url.json"))


BACKEND = """
import pathlib, zipfile
def build_wheel(out, config_settings=None, metadata_directory=None):
    name = "own-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(out, name), "w") as made:
        made.write(pathlib.Path("own.py"), "own.py")
        made.writestr("own-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: own\\nVersion: 1\\n")
        made.writestr("own-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        made.writestr("own-1.dist-info/RECORD", "own.py,,\\nown-1.dist-info/METADATA,,\\nown-1.dist-info/WHEEL,,\\n")
    return name
"""


def test_compiled_modules_are_used_whatever_the_time_of_their_source(tmp_path: Path) -> None:
    made = build(function(tmp_path / "f", more_py="X = 1\n"), tmp_path / "data")
    [compiled] = (made.files / "__pycache__").glob("more.*.pyc")
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 1  # by hash, and never compared


def test_a_bundle_that_is_gone_is_unpacked_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = build(function(tmp_path / "f"), data)
    for reference in ("f:1", made.pin("f:1")):
        shutil.rmtree(data / "bundles")
        found = stored.find(data / "bundles", reference)
        assert found is not None
        assert found.manifest == made.manifest
        assert (found.files / "func.py").read_text() == HANDLER
    assert stored.find(data / "bundles", "f:2") is None
    assert stored.find(data / "bundles", "f@sha256:" + "0" * 64) is None


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ({}, "has neither an entrypoint nor a command"),
        ({"entrypoint": ["a"], "architecture": "s390x"}, "built for linux/s390x; this machine is linux/"),
        ({"entrypoint": ["a"], "env": ["novalue"]}, "'novalue' is no variable"),
        ({"entrypoint": ["a"], "labels": {"io.hearth.paths": "["}}, "malformed label"),
        ({"entrypoint": ["a"], "labels": {"io.hearth.python": "2.7"}}, "built for Python 2.7; this node has"),
        ({"labels": {"io.hearth.base": ""}}, "has neither an entrypoint nor a command"),
        (
            {"entrypoint": ["a"], "architecture": "s390x", "labels": {"io.hearth.base": ""}},
            "built for linux/s390x; this machine is linux/",
        ),
        (
            {"entrypoint": ["a"], "volumes": {f"/v{n}": {} for n in range(40)}, "labels": {"io.hearth.base": ""}},
            "40 volumes; the limit is 32",
        ),
        (
            {"entrypoint": ["a"], "working_dir": "/a\0b", "labels": {"io.hearth.base": ""}},
            r"'/a\\x00b' is no path",
        ),
    ],
)
def test_an_image_that_cannot_run_is_refused_with_its_cause(tmp_path: Path, run: dict[str, Any], reason: str) -> None:
    store = ImageStore(tmp_path / "images")
    store.make()
    labels = {"io.hearth.base": "host", **run.pop("labels", {})}
    put_image(store, [archive(entry("function/f", b"x"))], ["f:1"], labels=labels, **run)
    with pytest.raises(InvalidImage, match=reason):
        stored.find(tmp_path / "bundles", "f:1")
    assert not (tmp_path / "bundles").exists()


def test_an_image_cannot_bring_its_own_manifest(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    store.make()
    data = archive(entry("bundle.json", b'{"cmd": ["evil"], "roots": ["/etc"]}'), entry("function/f", b"x"))
    put_image(store, [data], ["f:1"], entrypoint=["cat"], labels={"io.hearth.base": "host"})
    found = stored.find(tmp_path / "bundles", "f:1")
    assert found is not None
    again = bundle.load(found.folder)
    assert again is not None
    assert (again.manifest.cmd, again.manifest.roots) == (["cat"], [])


def old_build(data: Path, name: str, number: int) -> str:
    """A build of an earlier release; its reference."""
    digest = f"{number:064x}"
    folder = data / "bundles" / name / f".sha256-{digest}"
    (folder / "function").mkdir(parents=True)
    (folder / "function" / "f.txt").write_text(str(number))
    manifest = {"cmd": ["cat", "f.txt"], "content": f"sha256:{digest}", "roots": [sys.base_prefix]}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    (folder.parent / ".swapping").touch()
    link = folder.parent / str(number)
    link.symlink_to(folder.name)
    return f"{name}:{number}@sha256:{digest}"


def test_builds_of_earlier_releases_get_images_and_run_as_before(tmp_path: Path) -> None:
    references = [old_build(tmp_path, "team/f", 1), old_build(tmp_path, "team/f", 2), old_build(tmp_path, "g", 3)]
    bundles = tmp_path / "bundles"
    before = {path: path.stat().st_ino for path in bundles.rglob("*")}
    assert stored.import_builds(bundles) == 3
    assert stored.import_builds(bundles) == 0
    assert {path: path.stat().st_ino for path in bundles.rglob("*")} == before
    for number, reference in enumerate(references, 1):
        found = stored.find(bundles, reference)
        assert found is not None
        assert (found.files / "f.txt").read_text() == str(number)
    shutil.rmtree(bundles)
    for number, reference in enumerate(references, 1):
        for meant in (reference, reference.partition("@")[0]):
            found = stored.find(bundles, meant)
            assert found is not None
            assert (found.files / "f.txt").read_text() == str(number)
            assert found.manifest.cmd == ["cat", "f.txt"]


def test_images_of_what_is_needed_stay(tmp_path: Path) -> None:
    data, bundles = tmp_path / "data", tmp_path / "data" / "bundles"
    made = {name: build(function(tmp_path / name, name), data) for name in ("pinned", "tagged", "held", "dead")}
    used = {made["pinned"].pin("pinned:1"), "tagged:1"}
    held = made["held"].hold()
    assert held is not None
    removed = bundle.prune(bundles, used, before=math.inf)
    assert removed == [made["dead"].folder]
    needed = stored.digests(bundles, used)
    assert needed == {made[name].manifest.content for name in ("pinned", "tagged", "held")}
    os.close(held)
    assert stored.digests(bundles, used, without=[made["held"].folder]) == needed - {made["held"].manifest.content}
