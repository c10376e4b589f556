"""``func.yaml``: one function, its limits and how it is built. Both Fn's form and Hearth's few additions."""

# ruff: noqa: RUF009 - _told() makes the very fields that the rule asks for

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hearth.models.call import HeaderMap
from hearth.models.call_auth import (
    CALL_AUTHS,
    GITHUB,
    MAX_TOLERANCE_S,
    SIGNED,
    STYLES,
    Signature,
    validate_signature,
)
from hearth.models.call_result import MAX_TTL_S
from hearth.models.delivery import LIMITS, MAX_CALLS, MAX_DELAY_S
from hearth.models.destination import validate_destination
from hearth.models.errors import ApiError, InvalidCPUs, InvalidInstances
from hearth.models.function import DEFAULT, HTTP_STREAM, MAX_CONCURRENCY
from hearth.models.instances import BOUNDS, MAX_INSTANCES, Instances, check_instances
from hearth.models.retry import validate_retry
from hearth.models.route import (
    FORMATS,
    MAX_ASYNC_TIMEOUT_S,
    MAX_IDLE_TIMEOUT_S,
    TYPES,
    clean_path,
    parse_cpus,
    validate_path,
)
from hearth.models.schedule import SETTABLE, SETTABLE_TEXTS, definition_of, validate_schedule_name
from hearth.models.secret import WAYS
from hearth.models.times import EPOCH
from hearth.projects.errors import ProjectError
from hearth.projects.section import Document, Section
from hearth_fdk import checking

#: The names of a function's file; the first that is there counts.
FILES: Final = ("func.yaml", "func.yml", "func.json")
#: What a function without ``version`` gets by its first bump.
FIRST_VERSION: Final = "0.0.1"
#: The format of a Python function with a handler: it carries bytes, statuses and headers, and streams.
_PYTHON_FORMAT: Final = HTTP_STREAM

_LATEST: Final = "latest"
_MAX_MEMORY_MIB: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*", re.ASCII)
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_OF_V2: Final = "belongs to Fn's later API and is ignored"
_PASSED_OVER: Final = {
    "annotations": _OF_V2,
    "signing_details": _OF_V2,
    "deploy": _OF_V2,
    "triggers": "ignored; path: /NAME says where the function is called",
    "tests": "ignored; write test.yaml (hearth test)",
}


def _told(meaning: str, form: str = "text") -> Any:
    return dataclasses.field(default=None, metadata={"meaning": meaning, "form": form})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuncFile:
    """The content of a function's file. ``None``: it says nothing, and the server's default counts."""

    name: str = dataclasses.field(
        metadata={
            "meaning": "the image's name; the folder's name if missing, with `deploy --all` its path (`users-get`)",
            "form": "small letters, digits, . _ - /",
        }
    )
    version: str | None = _told("the image's tag; `latest` if missing; `hearth deploy` raises it", "tag")
    runtime: str | None = _told(
        "`python` (or `python3.12`...), `docker` (own Dockerfile), `exec` (any program); if missing: `docker` where a "
        "Dockerfile is, `python` where func.py is, else `exec`"
    )
    type: str | None = _told("`sync`: the caller waits; `async`: the caller gets an id", "`sync`, `async`")
    format: str | None = _told(
        "how calls reach the function: `http`, `json` or `http-stream` (Fn's kits of today) keep it warm, `default` "
        "starts it for each call; if missing: "
        f"`{_PYTHON_FORMAT}` for a Python handler, else `default`",
        "`default`, `http`, `json`, `http-stream`",
    )
    path: str | None = _told("where it is called, below the app; `/` and the folder's name if missing", "path")
    memory: int | None = _told("MiB that one container may use", "whole number")
    cpus: str | None = _told("`0.5` or `500m`: half a core; missing: no limit")
    timeout: int | None = _told("seconds that a call may take", "whole number")
    idle_timeout: int | None = _told("seconds that a warm container waits for its next call", "whole number")
    concurrency: int | None = _told(
        "calls that one container runs at once; more than 1 with the format `http-stream` only (formats.md)",
        "whole number",
    )
    min_instances: int | None = _told(
        "containers that each node starts in advance and keeps ready; not with the format `default` (scaling.md)",
        "whole number",
    )
    max_instances: int | None = _told(
        "containers that each node may have at most; further calls wait (scaling.md)", "whole number"
    )
    config: dict[str, str] | None = _told("the function's environment variables", "mapping")
    secrets: tuple[str, ...] | None = _told(
        "names of secrets of the app that it gets (`hearth secrets set`), besides those of app.yaml", "list"
    )
    secrets_as: str | None = _told(
        "how it gets them: as environment variables, or as files `/run/secrets/NAME`", "`env`, `files`"
    )
    auth: str | None = _told(
        "what callers show: nothing, a token, or a signature; if missing, what the app or the node says",
        "`open`, `token`, `signed`",
    )
    signature: dict[str, Any] | None = _told(
        "with `auth: signed`: `style` (`github`, `stripe`, `generic`) and `secret`, the name of the key; `header` and "
        "`tolerance` (seconds) may be added",
        "mapping",
    )
    retry: dict[str, Any] | None = _told(
        "when an async call that fails is run again: `attempts`, `backoff_s`, `factor`, `max_s`, `jitter`, `on`; see "
        "[Retries](howto/retries.md)",
        "mapping",
    )
    dead_letters: bool | None = _told(
        "keep async calls that fail; see [Retry a failing function](howto/dead-letters.md)",
        "true or false; true with `retry`",
    )
    schedules: tuple[dict[str, Any], ...] | None = _told(
        "times at which it is called: each with `name` and one of `cron` (with `timezone`), `every` and `at`; see "
        "[Schedules](howto/schedules.md)",
        "list of mappings",
    )
    expires_s: int | None = _told("seconds in which an async call has to start, else it ends", "whole number")
    max_queued: int | None = _told("async calls that may be queued; further ones are answered 429", "whole number")
    max_concurrent_async: int | None = _told(
        "async calls that run at one time on one node; further ones stay in the queue", "whole number"
    )
    result_ttl_s: int | None = _told("seconds for which the result of an async call is kept", "whole number")
    idempotency_ttl_s: int | None = _told(
        "seconds for which the answer to a call with an `Idempotency-Key` is kept; see "
        "[Receive a webhook once](howto/once.md)",
        "whole number",
    )
    on_success: str | None = _told(
        "where the record of an async call that has succeeded is sent; see [Destinations](howto/destinations.md)",
        "URL or `APP/ROUTE`",
    )
    on_failure: str | None = _told("the same for a call that has ended in another way", "URL or `APP/ROUTE`")
    headers: HeaderMap | None = _told("headers of every answer", "mapping; a value or a list of them")
    content_type: str | None = _told("Content-Type of what `hearth invoke` and `hearth run` send")
    entrypoint: tuple[str, ...] | None = _told("the program and its first arguments", "list or text")
    cmd: tuple[str, ...] | None = _told(
        "arguments behind `entrypoint`; the program, if there is no entrypoint", "list or text"
    )
    build: tuple[str, ...] | None = _told("shell commands that run in the folder before every build", "list")
    build_image: str | None = _told("the image in which requirements are installed", "image")
    run_image: str | None = _told("the image that the function's image is made from", "image")
    expects: dict[str, bool] | None = _told(
        "`config:` a list of `{name, required}`: variables it reads; a deploy without a required one stops", "mapping"
    )
    schema_version: int | None = _told("accepted from Fn's files, without effect", "whole number")
    folder: Path = dataclasses.field(default=Path(), metadata={})
    file: Path = dataclasses.field(default=Path("func.yaml"), metadata={})
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict, metadata={})
    warnings: tuple[str, ...] = dataclasses.field(default=(), metadata={})

    def image(self, registry: str = "") -> str:
        """Return the reference of its image, ``[registry/]name:version``; a name with a slash gets no registry."""
        prefix = f"{registry.rstrip('/')}/" if registry and "/" not in self.name else ""
        return f"{prefix}{self.name}:{self.version or _LATEST}"

    @property
    def route_path(self) -> str:
        """Return the path of the route below its app."""
        return clean_path(self.path or self.folder.absolute().name)

    @property
    def command(self) -> tuple[str, ...]:
        """Return the program and its arguments; empty if the file names none."""
        return (*(self.entrypoint or ()), *(self.cmd or ()))

    @property
    def program(self) -> Path | None:
        """Return the file that the kit runs, relative to the folder; ``None`` if the kit runs none."""
        words = self.command or ("func.py",)
        is_path = words[0].startswith(("/", "./", "../"))  # executed directly, as any program
        return Path(words[0]) if self.kind == "python" and words[0].endswith(".py") and not is_path else None

    @property
    def script(self) -> Path | None:
        """Return the script that the command gives to Python itself; ``None`` if there is none."""
        command = self.command
        if len(command) < 2 or not _PYTHON.fullmatch(command[0]) or not command[1].endswith(".py"):
            return None
        return Path(command[1])

    @property
    def has_handler(self) -> bool:
        """Return whether its program gives the kit a handler, as far as its text shows."""
        try:
            if self.program is not None:
                return checking.find_handlers((self.folder / self.program).read_bytes())
            return self.script is not None and checking.serves_itself((self.folder / self.script).read_bytes())
        except OSError:
            return False

    @property
    def route_format(self) -> str | None:
        """Return the format of its route; ``None`` for the server's default."""
        return _PYTHON_FORMAT if self.format is None and self.has_handler else self.format

    def where(self, *fields: str) -> str:
        """Return ``file:line: field`` of the first of these fields that the file has, to begin a message with."""
        given = next((name for name in fields if name in self.lines), None)
        return f"{self.file}: {fields[0]}" if given is None else f"{self.file}:{self.lines[given]}: {given}"

    def route(self, registry: str = "") -> dict[str, Any]:
        """Return the fields of its route for the API: only those that the file sets, and the image."""
        names = (
            *("type", "memory", "cpus", "timeout", "idle_timeout", "config", "secrets", "secrets_as"),
            *(
                "auth",
                "signature",
                "retry",
                "dead_letters",
                "result_ttl_s",
                "expires_s",
                "idempotency_ttl_s",
                *LIMITS,
                "on_success",
                "on_failure",
                "headers",
                "concurrency",
                *BOUNDS,
            ),
        )
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if (chosen := self.route_format) is not None:
            given["format"] = chosen
        return {"image": self.image(registry), **given}

    def missing_config(self, *given: dict[str, str] | None) -> list[str]:
        """Return the names of required variables that neither the file nor the given configurations set."""
        known = {*(self.config or ()), *(self.secrets or ())}.union(*(config or () for config in given))
        return [name for name, required in (self.expects or {}).items() if required and name not in known]

    @property
    def kind(self) -> str:
        """Return how the function is built: ``python``, ``docker`` or ``exec``."""
        if self.runtime is not None:
            return "python" if self.runtime.startswith("python") else self.runtime
        if (self.folder / "Dockerfile").is_file():
            return "docker"
        return "python" if (self.folder / "func.py").is_file() else "exec"


#: The fields that a file may have, in the order of the documentation.
FIELDS: Final = tuple(field for field in dataclasses.fields(FuncFile) if field.metadata)


def find(folder: Path) -> Path | None:
    """Return the function's file in a folder."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def find_all(folder: Path) -> Iterator[Path]:
    """Every folder of a function, this one and all below it but hidden ones, in the order of their paths."""
    if find(folder) is not None:
        yield folder
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from find_all(below)


def load(folder: Path, root: Path | None = None) -> FuncFile:
    """Return the function of a folder.

    Args:
        folder: Holds its file.
        root: A folder above: a function without a name is named by its path from there, ``users-get``.

    Raises:
        ProjectError: Its file is missing, or something in it is wrong.
    """
    file = find(folder)
    if file is None:
        raise ProjectError(f"{folder / FILES[0]}: not found; a function's folder holds a func.yaml (hearth init)")
    document = Document(file)
    found = _read(document, document.open(), folder, root)
    document.settle()
    return dataclasses.replace(found, warnings=tuple(document.warnings))


def _read(document: Document, section: Section, folder: Path, root: Path | None) -> FuncFile:
    section.check_names([field.name for field in FIELDS], _PASSED_OVER)
    found = FuncFile(
        name=_name(document, section, _default_name(folder, root)),
        version=_matching(section, "version", _VERSION, "is no tag: letters, digits and . _ -, at most 128"),
        runtime=_runtime(section),
        type=section.choice("type", TYPES),
        format=section.choice("format", FORMATS),
        path=_path(section),
        memory=section.whole("memory", 1, _MAX_MEMORY_MIB),
        cpus=_cpus(section),
        timeout=section.whole("timeout", 1, MAX_ASYNC_TIMEOUT_S),
        idle_timeout=section.whole("idle_timeout", 1, MAX_IDLE_TIMEOUT_S),
        concurrency=section.whole("concurrency", 1, MAX_CONCURRENCY),
        min_instances=section.whole("min_instances", 0, MAX_INSTANCES),
        max_instances=section.whole("max_instances", 1, MAX_INSTANCES),
        config=section.variables("config"),
        secrets=section.secret_names("secrets"),
        secrets_as=section.choice("secrets_as", WAYS),
        auth=section.choice("auth", CALL_AUTHS),
        signature=_signature(section),
        retry=_retry(section),
        dead_letters=section.flag("dead_letters"),
        schedules=_schedules(section),
        expires_s=section.whole("expires_s", 1, MAX_DELAY_S),
        max_queued=section.whole("max_queued", 1, MAX_CALLS),
        max_concurrent_async=section.whole("max_concurrent_async", 1, MAX_CALLS),
        result_ttl_s=section.whole("result_ttl_s", 1, MAX_TTL_S),
        idempotency_ttl_s=section.whole("idempotency_ttl_s", 1, MAX_TTL_S),
        on_success=_destination(section, "on_success"),
        on_failure=_destination(section, "on_failure"),
        headers=section.headers("headers"),
        content_type=section.text("content_type"),
        entrypoint=section.words("entrypoint"),
        cmd=section.words("cmd"),
        build=section.texts("build"),
        build_image=section.text("build_image"),
        run_image=section.text("run_image"),
        expects=_expects(section),
        schema_version=section.whole("schema_version", 0, 99999999),
        folder=folder,
        file=document.file,
        lines=section.lines(),
    )
    _check_concurrency(section, found)
    _check_instances(section, found)
    return found


def _default_name(folder: Path, root: Path | None) -> str:
    folder = folder.absolute()
    parts = () if root is None else folder.relative_to(root.absolute()).parts
    return "-".join(parts or (folder.name,)).lower()


def _name(document: Document, section: Section, name: str) -> str:
    rule = "is no image name: small letters and digits, between them . _ - or /"
    if section.node("name") is not None:
        return _matching(section, "name", _NAME, rule) or ""
    if _NAME.fullmatch(name) is None:
        document.problems.append(f"{document.file}: name: missing, and the folder's name {name!r} {rule}")
    return name


def _matching(section: Section, name: str, pattern: re.Pattern[str], rule: str) -> str | None:
    text = section.text(name)
    if text is not None and pattern.fullmatch(text) is None:
        section.complain(name, f"{text!r} {rule}")
    return text


def _runtime(section: Section) -> str | None:
    text = section.text("runtime")
    if text is None or re.fullmatch(r"python(3(\.\d+)?)?|docker|exec", text, re.ASCII):
        return text
    section.complain(
        "runtime", f"must be one of python, python3.N, docker, exec, not {text!r}; others need a Dockerfile and docker"
    )
    return None


def _path(section: Section) -> str | None:
    text = section.text("path")
    if text:
        try:
            validate_path(text if text.startswith("/") else f"/{text}")
        except ApiError as exc:
            section.complain("path", f"{text!r}: {exc.message}")
    return text or None


def _cpus(section: Section) -> str | None:
    text = section.text("cpus")
    if text is not None:
        try:
            parse_cpus(text)
        except InvalidCPUs:
            section.complain("cpus", f"must be a number of cores such as 0.5 or 500m, not {text!r}")
    return text


def _check_concurrency(section: Section, func: FuncFile) -> None:
    if func.concurrency is None or func.concurrency == 1 or func.route_format == HTTP_STREAM:
        return
    found = section.text("format")
    section.complain("concurrency", f"above 1 it needs format: {HTTP_STREAM}" + (f", not {found}" if found else ""))


def _check_instances(section: Section, func: FuncFile) -> None:
    bounds = Instances(min_instances=func.min_instances or 0, max_instances=func.max_instances)
    try:
        check_instances(bounds, func.route_format or DEFAULT)
    except InvalidInstances as exc:
        section.complain("min_instances", exc.problem)


def _signature(section: Section) -> dict[str, Any] | None:
    given = section.section("signature")
    if section.text("auth") == SIGNED and given is None:
        section.complain("auth", "signed needs signature: with its style and its secret")
    if given is None:
        return None
    given.check_names(["style", "secret", "header", "tolerance"], {})
    style, secret, header = given.choice("style", STYLES), given.text("secret"), given.text("header")
    tolerance = given.whole("tolerance", 1, MAX_TOLERANCE_S)
    try:
        validate_signature(Signature(style=style or GITHUB, secret=secret or "", header=header or ""))
    except ApiError as exc:
        section.complain("signature", exc.message)
    fields = {"style": style, "secret": secret, "header": header, "tolerance": tolerance}
    return {name: value for name, value in fields.items() if value is not None}


def _retry(section: Section) -> dict[str, Any] | None:
    fields = section.section("retry")
    if fields is None:
        return None
    given = {name: fields.plain(name) for name in fields}
    try:
        validate_retry(given)
    except ApiError as exc:
        section.complain("retry", exc.message)
    return given


def _schedules(section: Section) -> tuple[dict[str, Any], ...] | None:
    if section.node("schedules") is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for entry in section.sections("schedules"):
        entry.check_names(["name", *SETTABLE], {})
        name, headers, enabled = entry.text("name") or "", entry.headers("headers"), entry.flag("enabled")
        given: dict[str, Any] = {field: text for field in SETTABLE_TEXTS if (text := entry.text(field)) is not None}
        given |= {} if headers is None else {"headers": headers}
        given |= {} if enabled is None else {"enabled": enabled}
        try:
            validate_schedule_name(name)
            definition_of({**given, "route": "/"}, EPOCH)
        except ApiError as exc:
            section.complain("schedules", exc.message)
        if name in found:
            section.complain("schedules", f"name {name!r} is given twice")
        found[name] = given
    return tuple({"name": name, **given} for name, given in found.items())


def _destination(section: Section, name: str) -> str | None:
    text = section.text(name)
    if text is not None:
        try:
            validate_destination(name, text)
        except ApiError as exc:
            section.complain(name, exc.message)
    return text


def _expects(section: Section) -> dict[str, bool] | None:
    expects = section.section("expects")
    if expects is None:
        return None
    expects.check_names(["config"], {})
    found: dict[str, bool] = {}
    for entry in expects.sections("config"):
        name = entry.text("name")
        if name is None:
            expects.complain("config", "an entry has no name")
        else:
            found[name] = entry.flag("required") or False
    return found
