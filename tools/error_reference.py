"""Write docs/errors.md from the classes of errors."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType

from hearth.models import errors, fn_errors
from hearth.models.errors import ApiError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

HEAD = """# Errors

<!-- Written by tools/error_reference.py; `make reference` renews it. -->

Every message that a client of a node may get, by its status. Words in braces stand for values. Version 1 answers
`{"error": {"message": "..."}}`, version 2 and fns `{"message": "..."}`. The messages are an interface: a release does
not change them without saying so.

A status of 500 with `internal server error` is a failure of the node, a store or the Engine. The node logs the cause;
clients never see it.
"""
_MODULES = ((errors, "both versions"), (fn_errors, "version 2, fns"))

#: The case of the base class: its docstring describes the class, not a case.
_FAILURE = "The node, a store or the Engine failed; the log has the cause"


def page() -> str:
    """Return the whole page."""
    rows: dict[int, list[str]] = {}
    for module, where in _MODULES:
        for status, row in _rows(module, where):
            rows.setdefault(status, []).append(row)
    lines = [HEAD]
    for status, found in sorted(rows.items()):
        lines += [f"## {status} {HTTPStatus(status).phrase}\n", "| message | when | where |\n|---|---|---|"]
        lines += [*sorted(set(found), key=lambda row: (row.lower(), row)), ""]
    return "\n".join(lines)


def _rows(module: ModuleType, where: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(inspect.getsource(module))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and issubclass(found := vars(module)[node.name], ApiError):
            for message in _messages(node, found):
                yield found.status, f"| `{message}` | {_when(node) if found is not ApiError else _FAILURE} | {where} |"


def _messages(node: ast.ClassDef, found: type[ApiError]) -> list[str]:
    """Return the messages of a class: its own, or those that it gives to its parent; none of a class of classes."""
    if "message" in vars(found):
        return [found.message]
    given = [
        argument
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
        for argument in call.args
    ]
    return list(
        dict.fromkeys(text for argument in given for part in _parts(argument) if (text := _text(part)) != "{message}")
    )


def _parts(argument: ast.expr) -> list[ast.expr]:
    return [*_parts(argument.body), *_parts(argument.orelse)] if isinstance(argument, ast.IfExp) else [argument]


def _text(part: ast.expr) -> str:
    """Return a text as it is written, with the names of its values in braces."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.JoinedStr):
        return "".join(_text(piece) for piece in part.values)
    if isinstance(part, ast.FormattedValue):
        return "{" + _name(part.value) + "}"
    if isinstance(part, ast.BinOp):
        return _text(part.left) + _text(part.right)
    return "{" + _name(part) + "}"


def _name(value: ast.expr) -> str:
    names = [ast.unparse(one) for one in ast.walk(value) if isinstance(one, ast.Attribute | ast.Name)]
    return (names[0] if names else "value").removeprefix("self.").lstrip("_").replace("_", " ").lower()


def _when(node: ast.ClassDef) -> str:
    sentence = re.split(r"(?<=[.:]) |\n\n", " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split()))[0]
    return re.sub(r":\w+:(?=`)", "", sentence).replace("``", "`").replace("|", "\\|").rstrip(".:")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
