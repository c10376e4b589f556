"""What a build takes from a folder, what it leaves out, and where links may lead."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.umask import umask

from hearth.projects import ProjectError, sources


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return folder


def taken(folder: Path, **options: bool) -> set[str]:
    return {str(source.path) for source in sources.scan(folder, **options).taken if not source.is_folder}


def test_hidden_files_and_data_are_taken_and_tools_files_are_not(tmp_path: Path) -> None:
    wanted = {".env", ".well-known/x", "data/test.json", "tests/test.yaml", "lib/a.pyc", "node_modules/x/index.js"}
    tree(tmp_path, *wanted, ".git/HEAD", ".venv/pyvenv.cfg", "own-venv/pyvenv.cfg", "own-venv/bin/python")
    tree(tmp_path, "__pycache__/a.pyc", "lib/__pycache__/b.pyc", ".mypy_cache/x", "test.yaml", "test.json")
    assert taken(tmp_path) == wanted
    assert sources.scan(tmp_path).left_out == (
        *(".git/", ".mypy_cache/", ".venv/", "__pycache__/", "lib/__pycache__/", "own-venv/", "test.json", "test.yaml"),
    )


def test_the_ignore_file_leaves_out_and_takes_back_in(tmp_path: Path) -> None:
    tree(tmp_path, "a.log", "keep.log", "docs/a.md", "docs/b/c.md", "src/docs/x", "test.yaml", ".cache/x")
    (tmp_path / ".hearthignore").write_text("# comment\n*.log\n!keep.log\n/docs/**/*.md\n!test.yaml\n!.cache/\n")
    assert taken(tmp_path) == {".hearthignore", "keep.log", "src/docs/x", "test.yaml", ".cache/x"}


def test_a_wrong_pattern_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".hearthignore").write_text("*.log\n!\n")
    with pytest.raises(ProjectError, match=r"\.hearthignore:2: '!' is not a pattern of gitignore"):
        sources.scan(tmp_path)


def test_links_within_the_folder_stay_links(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", "pkg/lib/cli.js", "bin/.keep")
    (folder / "bin" / "cli").symlink_to("../pkg/lib/cli.js")
    (folder / "whole").symlink_to(folder / "pkg")  # absolute: made relative
    (folder / "pkg" / "up").symlink_to("..")
    sources.scan(folder).copy(tmp_path / "made")
    assert os.readlink(tmp_path / "made" / "bin" / "cli") == "../pkg/lib/cli.js"
    assert os.readlink(tmp_path / "made" / "whole") == "pkg"
    assert (tmp_path / "made" / "whole" / "up" / "whole" / "lib" / "cli.js").read_text() == "pkg/lib/cli.js"


def test_a_link_that_leaves_the_folder_is_refused_unless_its_content_is_wanted(tmp_path: Path) -> None:
    folder, outside = tree(tmp_path / "f", "own"), tree(tmp_path / "secret", "key", "deep/inner")
    (folder / "key").symlink_to(outside / "key")
    with pytest.raises(ProjectError, match=rf"{folder}/key: links to {outside}/key, outside .* --follow-outside"):
        sources.scan(folder)
    (folder / "more").symlink_to(outside)
    found = sources.scan(folder, follow_outside=True)
    found.copy(tmp_path / "made")
    assert (tmp_path / "made" / "key").read_text() == "key"
    assert not (tmp_path / "made" / "key").is_symlink()
    assert (tmp_path / "made" / "more" / "deep" / "inner").read_text() == "deep/inner"
    assert found.outside(folder) == {outside, outside / "key"}
    (folder / ".hearthignore").write_text("key\nmore\n")
    assert taken(folder) == {".hearthignore", "own"}


@pytest.mark.parametrize("target", [".", "..", "../secret"])
def test_links_that_contain_themselves_are_refused(tmp_path: Path, target: str) -> None:
    folder, outside = tree(tmp_path / "f", "own"), tree(tmp_path / "secret", "x")
    (outside / "back").symlink_to(outside)
    (folder / "loop").symlink_to(target)
    if target == ".":
        assert taken(folder) == {"own", "loop"}
        return
    with pytest.raises(ProjectError, match="which contains the link"):
        sources.scan(folder, follow_outside=True)


def test_links_that_lead_nowhere_or_to_what_is_left_out_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "test.yaml")
    (tmp_path / "cases").symlink_to("test.yaml")
    with pytest.raises(ProjectError, match=r"cases: links to test.yaml, which is left out"):
        sources.scan(tmp_path)
    (tmp_path / "cases").unlink()
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(ProjectError, match=r"self: cannot be copied"):
        sources.scan(tmp_path)


def test_what_is_neither_file_nor_folder_is_named_and_does_not_hang_the_build(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ProjectError, match=r"pipe: cannot be copied: neither a file nor a folder"):
        sources.scan(tmp_path)


def test_names_that_are_not_utf_8_are_copied(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", os.fsdecode(b"caf\xe9.txt"))
    found = sources.scan(folder)
    found.copy(tmp_path / "made")
    assert os.listdir(os.fsencode(tmp_path / "made")) == [b"caf\xe9.txt"]
    assert found.digests() == sources.scan(folder).digests()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_build_is_readable_for_every_user_and_keeps_execute_rights(tmp_path: Path, mask: int) -> None:
    folder = tree(tmp_path / "f", "run.sh", "data")
    (folder / "run.sh").chmod(0o700)
    (folder / "data").chmod(0o600)
    with umask(mask):
        sources.scan(folder).copy(tmp_path / "made")
    shown = subprocess.run(
        ["stat", "-c", "%n %a", "run.sh", "data", "."], cwd=tmp_path / "made", capture_output=True, text=True
    )
    assert shown.stdout == "run.sh 755\ndata 644\n. 755\n"


def test_the_digest_sees_names_bytes_rights_and_links(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", "a", "b")
    digests = [sources.scan(folder).digests()]
    for change in (
        lambda: (folder / "a").write_text("other"),
        lambda: (folder / "a").chmod(0o755),
        lambda: (folder / "b").rename(folder / "c"),
        lambda: (folder / "b").symlink_to("a"),
        lambda: (folder / "empty").mkdir(),
    ):
        change()
        digests.append(sources.scan(folder).digests())
    assert all(one != other for one, other in itertools.combinations(digests, 2))
    tree(folder, ".git/HEAD")
    assert sources.scan(folder).digests() == digests[-1]
