"""The wheels and source archives that are published: their bytes, and what runs from nothing else."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import httpx
import pytest
from tests.support.node import running_node
from tests.support.node_image import ROOT, locked_wheels

import hearth
import hearth_fdk

UV = Path(sys.executable).with_name("uv")
VERSION = hearth.__version__
FILES = {
    f"{name}-{VERSION}{ending}" for name in ("hearth_faas", "hearth_fdk") for ending in ("-py3-none-any.whl", ".tar.gz")
}
FUNCTION = """from hearth_fdk import Context, function


@function
def greet(ctx: Context, body: dict) -> dict:
    return {"message": f"Hello {body['name']}"}
"""
UNIT_TEST = (
    FUNCTION
    + """

from hearth_fdk.testing import call

print(call(greet, {"name": "Ada"}).json["message"])
"""
)


def clean_environment(**variables: str) -> dict[str, str]:
    """Neither this Python's paths nor anybody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FN_", "VIRTUAL_"))}
    return {**kept, **variables}


def build(folder: Path) -> Path:
    """Build both from a copy of the tree, in another place and with other times; the folder of the results."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, folder / name)  # a copy has neither the times nor the rights of its source
    for name in ("src", "fdk"):
        shutil.copytree(
            *(ROOT / name, folder / name),
            symlinks=True,
            copy_function=shutil.copyfile,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for project in (folder, folder / "fdk"):
        hatchling(project, "-d", folder / "dist")
    return folder / "dist"


def hatchling(project: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", *arguments]
    environment = clean_environment(SOURCE_DATE_EPOCH="1577836800")
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def installed(folder: Path, *requirements: str | Path) -> Path:
    """Make a virtual environment with what these need, from files of this machine only; its interpreter."""
    made: list[str | Path] = [UV, "venv", "--quiet", "--python", sys.executable, folder]
    subprocess.run(made, check=True, env=clean_environment())
    python = folder / "bin" / "python"
    install: list[str | Path] = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--offline",
        "--no-index",
        "--no-build",
    ]
    install += ["--cache-dir", folder / "cache", "--link-mode", "hardlink"]
    done = subprocess.run([*install, *requirements], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return python


def said(program: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all four files."""
    return build(tmp_path_factory.mktemp("built"))


def test_building_again_elsewhere_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert {path.name for path in dist.iterdir()} == {path.name for path in again.iterdir()} == FILES
    assert [path.name for path in dist.iterdir() if path.read_bytes() != (again / path.name).read_bytes()] == []


def test_a_source_archive_builds_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    for archive in dist.glob("*.tar.gz"):
        shutil.unpack_archive(archive, tmp_path, filter="data")
        hatchling(tmp_path / archive.name.removesuffix(".tar.gz"), "-t", "wheel", "-d", tmp_path / "dist")
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {name for name in FILES if name.endswith(".whl")}
    for wheel in (tmp_path / "dist").iterdir():
        assert wheel.read_bytes() == (dist / wheel.name).read_bytes()


def test_versions_agree_and_no_file_is_in_both(dist: Path) -> None:
    faas, fdk = (dist / f"{name}-{VERSION}-py3-none-any.whl" for name in ("hearth_faas", "hearth_fdk"))
    assert hearth_fdk.__version__ == VERSION
    assert f"hearth-fdk=={VERSION}" in metadata(faas).get_all("Requires-Dist", [])
    assert metadata(fdk).get_all("Requires-Dist") is None
    assert not set(zipfile.ZipFile(faas).namelist()) & set(zipfile.ZipFile(fdk).namelist())
    for wheel in (faas, fdk):
        assert metadata(wheel)["License-Expression"] == "Apache-2.0"
        assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("licenses/LICENSE")]


def test_the_license_of_the_kit_is_the_license() -> None:
    assert (ROOT / "fdk" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_extensions_name_the_distribution() -> None:
    for project in (ROOT / "examples" / "extensions").glob("*/pyproject.toml"):
        assert tomllib.loads(project.read_text())["project"]["dependencies"] == ["hearth-faas"]


def test_the_installed_wheel_serves_a_function(dist: Path, tmp_path: Path) -> None:
    lock = ROOT / "deploy" / "requirements.lock"
    sources: list[str | Path] = ["--find-links", locked_wheels(), "--find-links", dist]
    python = installed(tmp_path / "venv", *sources, "--constraint", lock, f"hearth-faas=={VERSION}")
    command = python.with_name("hearth")
    place = tmp_path / "greet"
    place.mkdir()
    assert VERSION in said(command, "--version", cwd=place)
    (place / "func.yaml").write_text("name: greet\nversion: 0.0.1\nruntime: python\n")
    (place / "func.py").write_text(FUNCTION)
    (data := tmp_path / "data").mkdir()
    with running_node("process", data, "", (command, "start")) as node:
        deploy: list[str | Path] = [command, "--api-url", node.url, "deploy", "--app", "shop"]
        home = clean_environment(HOME=str(tmp_path), FN_DATA_DIR=str(data))
        deployed = subprocess.run(deploy, cwd=place, env=home, capture_output=True, text=True)
        assert deployed.returncode == 0, deployed.stderr
        answer = node.http.post("/r/shop/greet", json={"name": "Ada"})
        assert (answer.status_code, answer.json()) == (200, {"message": "Hello Ada"})
        (place / "requirements.txt").write_text("cowsay\n")
        refused = subprocess.run(deploy, cwd=place, env=home, capture_output=True, text=True)
        assert refused.returncode == 1
        (line,) = refused.stderr.splitlines()
        assert "pip is missing beside Hearth" in line
        page = httpx.get(f"{node.url}/ui/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_the_kit_alone_runs_a_handler(dist: Path, tmp_path: Path) -> None:
    python = installed(tmp_path / "venv", "--find-links", dist, f"hearth-fdk=={VERSION}")
    packages = said(
        python, "-c", "import importlib.metadata as m; print([d.name for d in m.distributions()])", cwd=tmp_path
    )
    assert packages == "['hearth-fdk']"
    assert said(python, "-W", "error", "-c", UNIT_TEST, cwd=tmp_path) == "Hello Ada"
