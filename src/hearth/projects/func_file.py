"""``func.yaml``: one function, its limits and how it is built. Both Fn's form and Hearth's few additions."""

# ruff: noqa: RUF009 - _told() makes the very fields that the rule asks for

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hearth.models.errors import ApiError, InvalidCPUs
from hearth.models.route import (
    FORMATS,
    MAX_ASYNC_TIMEOUT_S,
    MAX_IDLE_TIMEOUT_S,
    TYPES,
    HeaderMap,
    clean_path,
    parse_cpus,
    validate_path,
)
from hearth.projects.errors import ProjectError
from hearth.projects.section import Document, Section

#: The names of a function's file; the first that is there counts.
FILES: Final = ("func.yaml", "func.yml", "func.json")
#: What a function without ``version`` gets by its first bump.
FIRST_VERSION: Final = "0.0.1"

_LATEST: Final = "latest"
_MAX_MEMORY_MIB: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*", re.ASCII)
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
    """What a function's file says. ``None``: it says nothing, and the server's default counts."""

    name: str = dataclasses.field(
        metadata={"meaning": "the image's name; the folder's name if missing", "form": "small letters, digits, . _ - /"}
    )
    version: str | None = _told("the image's tag; `latest` if missing; `hearth deploy` raises it", "tag")
    runtime: str | None = _told(
        "`python` (or `python3.12`...), `docker` (own Dockerfile), `exec` (any program); if missing: `docker` where a "
        "Dockerfile is, `python` where func.py is, else `exec`"
    )
    type: str | None = _told("`sync`: the caller waits; `async`: the caller gets an id", "`sync`, `async`")
    format: str | None = _told(
        "how calls reach the function: `json` or `http` keep it warm, `default` starts it for each call",
        "`default`, `http`, `json`",
    )
    path: str | None = _told("where it is called, below the app; `/` and the folder's name if missing", "path")
    memory: int | None = _told("MiB that one container may use", "whole number")
    cpus: str | None = _told("`0.5` or `500m`: half a core; missing: no limit")
    timeout: int | None = _told("seconds that a call may take", "whole number")
    idle_timeout: int | None = _told("seconds that a warm container waits for its next call", "whole number")
    config: dict[str, str] | None = _told("the function's environment variables", "mapping")
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
    warnings: tuple[str, ...] = dataclasses.field(default=(), metadata={})

    def image(self, registry: str = "") -> str:
        """The reference of its image: ``[registry/]name:version``; a name with a slash gets no registry."""
        prefix = f"{registry.rstrip('/')}/" if registry and "/" not in self.name else ""
        return f"{prefix}{self.name}:{self.version or _LATEST}"

    @property
    def route_path(self) -> str:
        """Where it is called, below its app."""
        return clean_path(self.path or self.folder.absolute().name)

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments; empty if the file names none."""
        return (*(self.entrypoint or ()), *(self.cmd or ()))

    def route(self, registry: str = "") -> dict[str, Any]:
        """The fields of its route, as the API takes them: only those that the file gives, and the image."""
        names = ("type", "format", "memory", "cpus", "timeout", "idle_timeout", "config", "headers")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {"image": self.image(registry), **given}

    def missing_config(self, *given: dict[str, str] | None) -> list[str]:
        """Names of required variables that neither the file nor what is given (the app's, say) sets."""
        known = set(self.config or ()).union(*(config or () for config in given))
        return [name for name, required in (self.expects or {}).items() if required and name not in known]

    @property
    def kind(self) -> str:
        """How it is built: ``python``, ``docker`` or ``exec``."""
        if self.runtime is not None:
            return "python" if self.runtime.startswith("python") else self.runtime
        if (self.folder / "Dockerfile").is_file():
            return "docker"
        return "python" if (self.folder / "func.py").is_file() else "exec"


#: The fields that a file may have, in the order of the documentation.
FIELDS: Final = tuple(field for field in dataclasses.fields(FuncFile) if field.metadata)


def find(folder: Path) -> Path | None:
    """The function's file in a folder."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def find_all(folder: Path) -> Iterator[Path]:
    """Every folder of a function, this one and all below it but hidden ones, in the order of their paths."""
    if find(folder) is not None:
        yield folder
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from find_all(below)


def load(folder: Path) -> FuncFile:
    """The function of a folder.

    Raises:
        ProjectError: Its file is missing, or something in it is wrong.
    """
    file = find(folder)
    if file is None:
        raise ProjectError(f"{folder / FILES[0]}: not found; a function's folder holds a func.yaml (hearth init)")
    document = Document(file)
    found = _read(document, document.open(), folder)
    document.settle()
    return dataclasses.replace(found, warnings=tuple(document.warnings))


def _read(document: Document, section: Section, folder: Path) -> FuncFile:
    section.check_names([field.name for field in FIELDS], _PASSED_OVER)
    return FuncFile(
        name=_name(document, section, folder),
        version=_matching(section, "version", _VERSION, "is no tag: letters, digits and . _ -, at most 128"),
        runtime=_runtime(section),
        type=section.choice("type", TYPES),
        format=section.choice("format", FORMATS),
        path=_path(section),
        memory=section.whole("memory", 1, _MAX_MEMORY_MIB),
        cpus=_cpus(section),
        timeout=section.whole("timeout", 1, MAX_ASYNC_TIMEOUT_S),
        idle_timeout=section.whole("idle_timeout", 1, MAX_IDLE_TIMEOUT_S),
        config=section.mapping("config"),
        headers=section.lists("headers"),
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
    )


def _name(document: Document, section: Section, folder: Path) -> str:
    rule = "is no image name: small letters and digits, between them . _ - or /"
    if section.node("name") is not None:
        return _matching(section, "name", _NAME, rule) or ""
    name = folder.absolute().name.lower()
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
        "runtime", f"{text!r} is none of python, python3.N, docker, exec; others need a Dockerfile, and docker here"
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
            section.complain("cpus", f"{text!r} is no amount of cores, as 0.5 or 500m")
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
