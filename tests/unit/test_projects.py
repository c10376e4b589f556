"""What is read from func.yaml and app.yaml, what is refused and where, and what a bump leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hearth import projects
from hearth.projects import ProjectError
from hearth.projects.func_file import FIELDS

EVERYTHING = """\
schema_version: 20180708
name: team/greet
version: 1.10
runtime: python3.11
type: async
format: json
path: /greet
memory: 256
cpus: 500m
timeout: 60
idle_timeout: 45
concurrency: 1
config: {PORT: 080, EMPTY: , ON: yes}
secrets: [API_KEY, DB]
secrets_as: files
auth: signed
signature: {style: stripe, secret: KEY, tolerance: 60}
headers: {X-One: 1, X-Two: [a, b]}
retry: {attempts: 3, backoff_s: 0.5, on: [timeout]}
result_ttl_s: 60
dead_letters: false
max_queued: 50
max_concurrent_async: 5
min_instances: 2
max_instances: 7
expires_s: 90
idempotency_ttl_s: 120
on_success: https://example.com/ended
on_failure: alarms/failed
schedules:
- {name: nightly, cron: "0 2 * * *", timezone: Europe/Berlin, headers: {X: y}, enabled: no}
- {name: once, at: 2030-01-31T12:00:00Z, payload: "{}", if_missed: skip, overlap: skip}
content_type: application/json
entrypoint: python3 -u
cmd: [func.py, "a b"]
build: [make all]
build_image: python:3.11
run_image: python:3.11-slim
expects: {config: [{name: TOKEN, required: true}, {name: PORT, required: true}, {name: MORE}]}
"""


def folder(where: Path, text: str, name: str = "func.yaml") -> Path:
    """A project."""
    where.mkdir(exist_ok=True)
    (where / name).write_text(text)
    return where


def test_every_field_is_read_as_it_is_written(tmp_path: Path) -> None:
    func = projects.load(folder(tmp_path, EVERYTHING))
    assert func.warnings == ()
    assert all(getattr(func, field.name) is not None for field in FIELDS)
    assert func.image() == func.image("registry.example/me") == "team/greet:1.10"
    assert func.config == {"PORT": "080", "EMPTY": "", "ON": "yes"}
    assert func.command == ("python3", "-u", "func.py", "a b")
    assert func.route() == {
        "image": "team/greet:1.10",
        "type": "async",
        "format": "json",
        "memory": 256,
        "cpus": "500m",
        "timeout": 60,
        "idle_timeout": 45,
        "config": func.config,
        "secrets": ("API_KEY", "DB"),
        "secrets_as": "files",
        "auth": "signed",
        "signature": {"style": "stripe", "secret": "KEY", "tolerance": 60},
        "headers": {"X-One": ["1"], "X-Two": ["a", "b"]},
        "concurrency": 1,
        "retry": {"attempts": 3, "backoff_s": 0.5, "on": ["timeout"]},
        "result_ttl_s": 60,
        "dead_letters": False,
        "max_queued": 50,
        "max_concurrent_async": 5,
        "min_instances": 2,
        "max_instances": 7,
        "expires_s": 90,
        "idempotency_ttl_s": 120,
        "on_success": "https://example.com/ended",
        "on_failure": "alarms/failed",
    }
    assert func.missing_config() == ["TOKEN"]
    assert func.missing_config({"TOKEN": "t"}) == []


def test_several_calls_at_once_need_a_format_that_can_tell_them_apart(tmp_path: Path) -> None:
    func = projects.load(folder(tmp_path / "a", "format: http-stream\nconcurrency: 8\n"))
    assert func.route()["concurrency"] == 8
    with pytest.raises(ProjectError, match=r"func.yaml:2: concurrency: above 1 it needs format: http-stream, not json"):
        projects.load(folder(tmp_path / "b", "format: json\nconcurrency: 8\n"))
    with pytest.raises(ProjectError, match=r"func.yaml:1: concurrency: above 1 it needs format: http-stream$"):
        projects.load(folder(tmp_path / "c", "concurrency: 8\n"))
    with_handler = folder(tmp_path / "e", "runtime: python\nconcurrency: 8\n")
    (with_handler / "func.py").write_text("from hearth_fdk import function\n@function\nasync def f() -> None: ...\n")
    assert projects.load(with_handler).route()["concurrency"] == 8, "its format is http-stream if nothing else is said"
    with pytest.raises(ProjectError, match="1 to 1000"):
        projects.load(folder(tmp_path / "d", "format: http-stream\nconcurrency: 1001\n"))


def test_a_secret_counts_as_a_required_variable(tmp_path: Path) -> None:
    func = projects.load(folder(tmp_path, "secrets: [TOKEN]\nexpects: {config: [{name: TOKEN, required: true}]}\n"))
    assert func.missing_config() == []


def test_a_policy_of_retries_that_is_none_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"func.yaml:2: retry: .*attempts must be an integer from 1 to 20"):
        projects.load(folder(tmp_path, "version: 1\nretry: {attempts: 0}\n"))


@pytest.mark.parametrize("name", ["FN_X", "a-b", "1"])
def test_a_wrong_name_of_a_secret_is_reported_with_its_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match=rf"func.yaml:2: secrets: '{name}': Invalid secret name"):
        projects.load(folder(tmp_path, f"version: 1\nsecrets: ['{name}']\n"))
    with pytest.raises(ProjectError, match=r"app.yaml:1: secrets: "):
        projects.load_app(folder(tmp_path, f"secrets: ['{name}']\n", "app.yaml"))


def test_a_file_may_say_nothing(tmp_path: Path) -> None:
    func = projects.load(folder(tmp_path / "Greet", ""))
    assert (func.name, func.image("me/"), func.route_path) == ("greet", "me/greet:latest", "/Greet")
    assert func.route() == {"image": "greet:latest"}
    assert func.kind == "exec"
    (tmp_path / "Greet" / "func.py").touch()
    assert func.kind == "python"
    (tmp_path / "Greet" / "Dockerfile").touch()
    assert func.kind == "docker"


@pytest.mark.parametrize("name", ["func.yaml", "func.yml", "func.json"])
def test_each_name_of_the_file_is_found(tmp_path: Path, name: str) -> None:
    assert projects.load(folder(tmp_path, '{"name": "f",\n "memory": 64}', name)).memory == 64


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: Hello World\n", "func.yaml:1: name: 'Hello World' is no image name"),
        ("name: ../up\n", "func.yaml:1: name: '../up' is no image name"),
        pytest.param(f"name: a{'_' * 99}\n", "is no image name", id="a name that ends in underscores"),
        ("name: f\n\nversion: a/b\n", "func.yaml:3: version: 'a/b' is no tag"),
        ("runtime: cobol\n", "func.yaml:1: runtime: must be one of python, python3.N, docker, exec, not 'cobol'"),
        ("type: asinc\n", "func.yaml:1: type: must be one of sync, async, not 'asinc'; perhaps async was meant"),
        ("format: xml\n", "func.yaml:1: format: must be one of default, http, json"),
        ("memory: much\n", "func.yaml:1: memory: must be an integer from 1 to "),
        ("timeout: 0\n", "func.yaml:1: timeout: must be an integer from 1 to 3600, not '0'"),
        ("timeout: 1.5\n", "func.yaml:1: timeout: must be an integer from 1 to 3600, not '1.5'"),
        ("idle_timeout: [1]\n", "func.yaml:1: idle_timeout: expected a text, not a list"),
        ("cpus: many\n", "func.yaml:1: cpus: must be a number of cores such as 0.5 or 500m, not 'many'"),
        ("path: a?b\n", "func.yaml:1: path: 'a?b': "),
        ("config:\n  A: {b: c}\n", "func.yaml:2: config.A: expected a text, not a mapping"),
        ("config: [A]\n", "func.yaml:1: config: expected a mapping, not a list"),
        ("headers: {A: [[b]]}\n", "func.yaml:1: headers.A[0]: expected a text, not a list"),
        ("build: make\n", "func.yaml:1: build: expected a list, not a text"),
        ("cmd: 'a \"b'\n", "func.yaml:1: cmd: no closing quotation"),
        ("expects: {config: x}\n", "func.yaml:1: expects.config: expected a list of mappings"),
        (
            "expects: {config: [{name: A, required: 1}]}\n",
            "func.yaml:1: expects.config[0].required: expected true or false",
        ),
        ("expects: {config: [{required: true}]}\n", "func.yaml:1: expects.config: an entry has no name"),
        ("name: f\nname: g\n", "func.yaml:2: name: given twice"),
        ("name: [\n", "func.yaml:2: "),
        ("just text\n", "func.yaml:1: expected fields (name: value), not a text"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ProjectError) as failed:
        projects.load(folder(tmp_path / "f", text))
    assert problem in str(failed.value)
    assert str(tmp_path) in str(failed.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as failed:
        projects.load(folder(tmp_path, "memory: x\ntimeout: y\n"))
    assert [line.split(": ")[1] for line in str(failed.value).splitlines()] == ["memory", "timeout"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"func.yaml: not found; .*hearth init"):
        projects.load(tmp_path)


def test_unknown_fields_are_warned_of_with_what_was_perhaps_meant(tmp_path: Path) -> None:
    text = "name: f\nmemroy: 5\nzzz: 1\ntriggers: [{name: t, type: http, source: /t}]\n"
    warnings = projects.load(folder(tmp_path, text)).warnings
    assert [warning.partition("func.yaml:")[2] for warning in warnings] == [
        "2: memroy: unknown field, ignored; perhaps memory was meant",
        "3: zzz: unknown field, ignored",
        "4: triggers: ignored; path: /NAME says where the function is called",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# mine\nname: f\nversion: 0.0.9 # old\n", "# mine\nname: f\nversion: 0.0.10 # old\n"),
        ("name: f\nversion: '1'\n", "name: f\nversion: '1.0.1'\n"),
        ('version: "2.3"\r\nname: f\r\n', 'version: "2.3.1"\r\nname: f\r\n'),
        ("# first\nname: f\n", "# first\nversion: 0.0.1\nname: f\n"),
        ("version:\nname: f\n", "version: 0.0.1\nname: f\n"),
        ("", "version: 0.0.1\n"),
        ('{"name": "f"}', '{"version": "0.0.1", "name": "f"}'),
        ("{}", '{"version": "0.0.1"}'),
    ],
)
def test_a_bump_changes_the_version_and_nothing_else(tmp_path: Path, before: str, after: str) -> None:
    file = folder(tmp_path / "f", "") / "func.yaml"
    file.write_bytes(before.encode())
    file.chmod(0o640)
    version = projects.bump(tmp_path / "f")
    assert file.read_bytes().decode() == after
    assert version == projects.load(tmp_path / "f").version
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["func.yaml"]


def test_json_with_tabs_is_bumped_too(tmp_path: Path) -> None:
    projects.bump(folder(tmp_path, '{\n\t"name": "f",\n\t"version": "1.0.0"\n}\n', "func.json"))
    assert (tmp_path / "func.json").read_text() == '{\n\t"name": "f",\n\t"version": "1.0.1"\n}\n'


def test_a_version_that_is_no_number_is_not_bumped(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="'main' cannot be raised"):
        projects.bump(folder(tmp_path, "name: f\nversion: main\n"))


@given(
    st.lists(
        st.sampled_from(["name: f", "version: 3.2.1", "# version: 1", "memory: 64", "", "config: {version: 9}"]),
        unique=True,
    )
)
def test_a_bump_is_one_more_whatever_is_around_it(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    where = folder(tmp_path_factory.mktemp("p") / "f", "\n".join(lines) + "\n")
    before = yaml.safe_load((where / "func.yaml").read_text()) or {}
    projects.bump(where)
    after = yaml.safe_load((where / "func.yaml").read_text())
    assert after.pop("version") == ("3.2.2" if "version: 3.2.1" in lines else "0.0.1")
    before.pop("version", None)
    assert after == before


def test_folders_of_functions_are_found_below(tmp_path: Path) -> None:
    for name in ("b", "a/deep", ".hidden", "none"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b", "a/deep", ".hidden", "."):
        folder(tmp_path / name, "name: f\n")
    assert list(projects.find_all(tmp_path)) == [tmp_path, tmp_path / "a/deep", tmp_path / "b"]


def test_an_app_file_is_read(tmp_path: Path) -> None:
    assert projects.load_app(tmp_path) is None
    app = projects.load_app(folder(tmp_path, "name: shop\nconfig: {A: 01}\nsyslog_url: x\nnmae: y\n", "app.yaml"))
    assert app is not None
    assert (app.name, app.config) == ("shop", {"A": "01"})
    assert [warning.partition("app.yaml:")[2][:13] for warning in app.warnings] == ["3: syslog_url", "4: nmae: unkn"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{cron: '0 2 * * *'}]", "schedules: .*name: it must have"),
        ("[{name: a}]", "schedules: .*exactly one of cron, every and at"),
        ("[{name: a, cron: 0 2 * *}]", "schedules: .*cron: it must have five fields"),
        ("[{name: a, every: 1h, overlap: no}]", "schedules: .*overlap: it must be one of"),
        ("[{name: a, every: 1h}, {name: a, every: 2h}]", "schedules: name 'a' is given twice"),
        ("nightly", "schedules: expected a list of mappings"),
    ],
)
def test_a_wrong_schedule_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ProjectError, match=f"func.yaml:1: {problem}"):
        projects.load(folder(tmp_path, f"schedules: {text}\n"))


def test_schedules_are_read_as_they_are_written(tmp_path: Path) -> None:
    assert projects.load(folder(tmp_path, EVERYTHING)).schedules == (
        {
            **{"name": "nightly", "cron": "0 2 * * *", "timezone": "Europe/Berlin"},
            **{"headers": {"X": ["y"]}, "enabled": False},
        },
        {"name": "once", "at": "2030-01-31T12:00:00Z", "payload": "{}", "if_missed": "skip", "overlap": "skip"},
    )


def test_a_wrong_app_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"app.yaml:1: name: 'a b': Invalid app name"):
        projects.load_app(folder(tmp_path, "name: a b\n", "app.yaml"))


def test_the_documentation_lists_the_fields() -> None:
    page = (Path(__file__).parents[2] / "docs" / "func-yaml.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{field.name}` | {field.metadata['form']} | {field.metadata['meaning']} |" for field in FIELDS]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("format: http\nmin_instances: 3\nmax_instances: 2\n", "min_instances 3 is above max_instances 2"),
        ("format: default\nmin_instances: 1\n", "needs the format http, json or http-stream, not default"),
        ("min_instances: -1\n", "min_instances"),
        ("max_instances: 0\n", "max_instances"),
    ],
)
def test_bounds_of_containers_that_no_server_takes_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ProjectError, match=problem):
        projects.load(folder(tmp_path, f"name: f\nentrypoint: ./f\n{text}"))
