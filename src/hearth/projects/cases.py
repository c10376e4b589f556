"""Cases of a function's test: ``test.yaml``, or Fn's ``test.json``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from hearth.projects.errors import ProjectError
from hearth.projects.section import Document, Section

FILES: Final = ("test.yaml", "test.yml", "test.json")
_FIELDS: Final = ("name", "method", "body", "json", "headers", "config", "expect")
_EXPECTED: Final = ("status", "body", "json", "headers", "log")
_OF_FN: Final = ("name", "input", "output", "err", "env")
_NOTHING: Final = object()
#: What text that is no JSON reads as: equal to nothing that may be expected.
_NO_JSON: Final = object()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call and what is expected of its answer; ``None``: anything will do."""

    name: str
    method: str = "POST"
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, str] = dataclasses.field(default_factory=dict)
    status: int | None = 200
    text: str | None = None
    value: Any = _NOTHING
    answer_headers: dict[str, str] = dataclasses.field(default_factory=dict)
    log: str | None = None
    error: str | None = None

    def judge(self, status: int, headers: Any, body: bytes, log: str) -> list[str]:
        """Return the differences from what is expected, in words."""
        said = body.decode(errors="replace")
        wrong = []
        if self.error is not None and (status < 400 or self.error not in said + log):
            wrong.append(f"error: expected {self.error!r}, got status {status}: {said.strip()!r}")
        if self.status is not None and status != self.status:
            wrong.append(f"status: expected {self.status}, got {status}: {said.strip()!r}")
        if self.text is not None and said.removesuffix("\n") != self.text.removesuffix("\n"):
            wrong.append(f"body: expected {self.text!r}, got {said!r}")
        if self.value is not _NOTHING and _parsed(said) != self.value:
            wrong.append(f"json: expected {json.dumps(self.value)}, got {said!r}")
        for name, value in self.answer_headers.items():
            if headers.get(name) != value:
                wrong.append(f"header {name}: expected {value!r}, got {headers.get(name)!r}")
        if self.log is not None and self.log not in log:
            wrong.append(f"log: expected {self.log!r} in it, got {log!r}")
        return wrong


def load_cases(folder: Path) -> tuple[list[Case], list[str]]:
    """Return the cases of a function, and warnings about ignored fields.

    Raises:
        ProjectError: There is no file of cases, or it is not valid.
    """
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise ProjectError(f"{folder / FILES[0]}: not found; it lists the cases under tests:")
    document = Document(file)
    top = document.open()
    top.check_names(["tests"], {})
    sections = top.sections("tests")
    read = _read_fn if file.suffix == ".json" and any(_is_fn(section) for section in sections) else _read
    cases = [read(section, number) for number, section in enumerate(sections, 1)]
    document.settle()
    if not cases:
        raise ProjectError(f"{file}: tests: there are none")
    return cases, document.warnings


def _is_fn(section: Section) -> bool:
    return any(name in section for name in ("input", "output", "err", "env"))


def _read(section: Section, number: int) -> Case:
    section.check_names(_FIELDS, {})
    headers = section.mapping("headers") or {}
    body = (section.text("body") or "").encode()
    if section.node("json") is not None:
        body = json.dumps(section.plain("json")).encode()
        headers = {"Content-Type": "application/json", **headers}
    expect = section.section("expect")
    expected: dict[str, Any] = {}
    if expect is not None:
        expect.check_names(_EXPECTED, {})
        if (status := expect.whole("status", 100, 999)) is not None:
            expected["status"] = status
        if expect.node("json") is not None:
            expected["value"] = expect.plain("json")
        expected |= {"text": expect.text("body"), "log": expect.text("log")}
        expected["answer_headers"] = expect.mapping("headers") or {}
    return Case(
        name=section.text("name") or f"case {number}",
        method=section.text("method") or "POST",
        body=body,
        headers=headers,
        config=section.variables("config") or {},
        **expected,
    )


def _read_fn(section: Section, number: int) -> Case:
    """Read a case in the format of Fn's own command: bodies are texts, or any JSON."""
    section.check_names(_OF_FN, {})
    given, expected = section.section("input"), section.section("output")
    body = given.plain("body") if given is not None else None
    wanted = expected.plain("body") if expected is not None else None
    error = section.text("err") or None
    return Case(
        name=section.text("name") or f"case {number}",
        body=b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode(),
        config=section.variables("env") or {},
        status=200 if error is None else None,
        error=error,
        text=wanted if isinstance(wanted, str) else None,
        value=_NOTHING if wanted is None or isinstance(wanted, str) else wanted,
    )


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return _NO_JSON
