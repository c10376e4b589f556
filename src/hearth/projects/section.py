"""Read a mapping of a YAML or JSON file field by field, and collect errors with their lines."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from hearth.models.config import config_problem, header_problem
from hearth.models.errors import SecretsInvalidName
from hearth.models.secret import validate_secret_name
from hearth.projects.errors import ProjectError

_NULL: Final = "tag:yaml.org,2002:null"
_INT: Final = "tag:yaml.org,2002:int"
_BOOL: Final = "tag:yaml.org,2002:bool"
_NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
_TRUE: Final = ("true", "yes", "on")
_KINDS: Final = {yaml.ScalarNode: "a text", yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}


class Document:
    """One file, and what was found to be wrong or odd in it.

    Attributes:
        problems: Each as ``file:line: field: what``.
        warnings: The same, of what is passed over.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def open(self) -> Section:
        """Return the mapping of the file.

        Raises:
            ProjectError: It cannot be read, or holds no mapping.
        """
        try:
            node = yaml.compose(read_text(self.file), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as exc:
            line = exc.problem_mark.line + 1 if exc.problem_mark else 1
            raise ProjectError(f"{self.file}:{line}: {exc.problem or exc}") from exc
        except yaml.YAMLError as exc:
            raise ProjectError(f"{self.file}: {exc}") from exc
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise ProjectError(
                f"{self.file}:{node.start_mark.line + 1}: expected fields (name: value), not {kind(node)}"
            )
        return Section(self, node or yaml.MappingNode("", []))

    def complain(self, node: yaml.Node, name: str, what: str) -> None:
        """Note a problem."""
        self.problems.append(f"{self.file}:{node.start_mark.line + 1}: {name}: {what}")

    def warn(self, node: yaml.Node, name: str, what: str) -> None:
        """Note what is passed over."""
        self.warnings.append(f"{self.file}:{node.start_mark.line + 1}: {name}: {what}")

    def settle(self) -> None:
        """Stop here if anything is wrong.

        Raises:
            ProjectError: All that is.
        """
        if self.problems:
            raise ProjectError("\n".join(self.problems))


class Section:
    """A mapping. A field that is missing or null reads as ``None``; a wrong one too, and is noted."""

    def __init__(self, document: Document, node: yaml.MappingNode, prefix: str = "") -> None:
        self._document = document
        self._prefix = prefix
        self._fields: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in self._fields:
                document.complain(key, prefix + name, "given twice")
            self._fields[name] = key, value

    def node(self, name: str) -> yaml.Node | None:
        """Return the node of a field; ``None`` if it is missing or null."""
        value = self._fields[name][1] if name in self._fields else None
        return None if value is not None and value.tag == _NULL else value

    def lines(self) -> dict[str, int]:
        """Return the line of each field."""
        return {name: key.start_mark.line + 1 for name, (key, _) in self._fields.items()}

    def complain(self, name: str, what: str) -> None:
        """Note a problem of a field that exists."""
        self._document.complain(self._fields[name][1], self._prefix + name, what)

    def text(self, name: str) -> str | None:
        """Return a scalar exactly as it is written: ``1.10`` stays ``1.10``."""
        return self._scalar(name, self.node(name))

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """Return one of some words."""
        found = self.text(name)
        if found is None or found in (known := list(choices)):
            return found
        self.complain(name, f"must be one of {', '.join(known)}, not {found!r}{_perhaps(found, known)}")
        return None

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return an integer between two limits."""
        text = self.text(name)
        if text is None:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 19 and low <= int(text) <= high):
            self.complain(name, f"must be an integer from {low} to {high}, not {text!r}")
            return None
        return int(text)

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        node = self.node(name)
        if node is None:
            return None
        if node.tag != _BOOL:
            self.complain(name, "expected true or false")
            return None
        return str(node.value).lower() in _TRUE

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of scalars."""
        node = self.node(name)
        if node is None:
            return None
        if not isinstance(node, yaml.SequenceNode):
            self.complain(name, f"expected a list, not {kind(node)}")
            return None
        found = [self._scalar(f"{name}[{number}]", item) for number, item in enumerate(node.value)]
        return tuple(text for text in found if text is not None)

    def words(self, name: str) -> tuple[str, ...] | None:
        """Return a command: a list of words, or one text that is split as a shell does."""
        if not isinstance(self.node(name), yaml.ScalarNode):
            return self.texts(name)
        try:
            return tuple(shlex.split(self.text(name) or ""))
        except ValueError as exc:
            self.complain(name, str(exc).lower())
            return None

    def mapping(self, name: str) -> dict[str, str] | None:
        """Return a mapping of scalars, each exactly as it is written; null is the empty text."""
        section = self.section(name)
        return None if section is None else {key: section.text(key) or "" for key in section}

    def lists(self, name: str) -> dict[str, list[str]] | None:
        """Return a mapping of lists; one text is a list of one."""
        section = self.section(name)
        if section is None:
            return None
        return {key: list(section._one_or_more(key) or ()) for key in section}  # noqa: SLF001  # another instance of this class

    def variables(self, name: str) -> dict[str, str] | None:
        """Return a mapping of environment variables to their values."""
        found = self.mapping(name)
        for key in found or ():
            if problem := config_problem(key, ""):
                self.complain(name, problem)
        return found

    def secret_names(self, name: str) -> tuple[str, ...] | None:
        """Return a list of names of secrets."""
        found = self.texts(name)
        for text in found or ():
            try:
                validate_secret_name(text)
            except SecretsInvalidName as exc:
                self.complain(name, f"{text!r}: {exc.message}")
        return found

    def headers(self, name: str) -> dict[str, list[str]] | None:
        """Return a mapping of response headers to their values; one text is a list of one."""
        found = self.lists(name)
        for key, values in (found or {}).items():
            if problem := header_problem(key, values):
                self.complain(name, problem)
        return found

    def section(self, name: str) -> Section | None:
        """Return a mapping within this one."""
        node = self.node(name)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            self.complain(name, f"expected a mapping, not {kind(node)}")
            return None
        return Section(self._document, node, f"{self._prefix}{name}.")

    def sections(self, name: str) -> list[Section]:
        """Return a list of mappings."""
        node = self.node(name)
        if node is None:
            return []
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not isinstance(node, yaml.SequenceNode) or not all(isinstance(item, yaml.MappingNode) for item in items):
            self.complain(name, "expected a list of mappings")
            return []
        return [Section(self._document, item, f"{self._prefix}{name}[{number}].") for number, item in enumerate(items)]

    def plain(self, name: str) -> object:
        """Whatever is there, as Python's own objects."""
        node = self.node(name)
        loader = yaml.SafeLoader("")
        return None if node is None else loader.construct_document(node)

    def check_names(self, known: Sequence[str], passed_over: dict[str, str]) -> None:
        """Warn of fields that mean nothing here; ``passed_over`` says why of some."""
        for name, (key, _) in self._fields.items():
            if name in passed_over:
                self._document.warn(key, self._prefix + name, passed_over[name])
            elif name not in known:
                self._document.warn(key, self._prefix + name, f"unknown field, ignored{_perhaps(name, known)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def _one_or_more(self, name: str) -> Sequence[str] | None:
        if isinstance(self.node(name), yaml.ScalarNode):
            text = self.text(name)
            return None if text is None else [text]
        return self.texts(name)

    def _scalar(self, name: str, node: yaml.Node | None) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._document.complain(node, self._prefix + name, f"expected a text, not {kind(node)}")
            return None
        text = str(node.value)
        if _NO_TEXT.search(text):
            self._document.complain(node, self._prefix + name, "must be valid Unicode, without NUL")
            return None
        return text


def read_text(file: Path) -> str:
    """Return the text of a file, line ends included; tabs of JSON, which YAML refuses between values, become blanks.

    Raises:
        ProjectError: It cannot be read.
    """
    try:
        text = file.read_bytes().decode()
    except OSError as exc:
        raise ProjectError(f"{file}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ProjectError(f"{file}: not UTF-8: {exc.reason} at byte {exc.start}") from exc
    return text.replace("\t", " ") if file.suffix == ".json" else text


def kind(node: yaml.Node) -> str:
    """Return the kind of a node for messages."""
    return _KINDS[type(node)]


def _perhaps(name: str, known: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; perhaps {similar[0]} was meant" if similar else ""
