"""Read a program without running it: does it have one handler, and does the handler ask for what a call can give?

The author of a function learns of a fault from the build instead of from the first call. Only what the text proves is
reported: a name that comes from elsewhere is left to the start of the function.
"""

from __future__ import annotations

import ast
import builtins
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

_KIT = "hearth_fdk"
NO_HANDLER = "no handler. Decorate one function with @function (from hearth_fdk import function)"

_PLAIN = {"str", "int", "float", "bool", "dict", "list", "tuple", "set", "frozenset", "object", "None"}
_WHOLE_BODY = {"bytes", "io.BytesIO"}
_KNOWN = {
    *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID"),
    *("pathlib.Path", "pathlib.PurePath", "pathlib.PosixPath", "pathlib.PurePosixPath"),
}
#: Modules whose names stand for other types, or make some.
_TYPING = {"typing", "typing_extensions", "collections.abc", "enum", "dataclasses", "collections"}
_NO_TYPES = {"typing.Callable", "collections.abc.Callable", "typing.Iterator", "collections.abc.Iterator"}
_ADVICE = "take dict, a dataclass, a TypedDict or a pydantic model"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def check(source: bytes, *, is_module: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Return what is wrong with a program, each as ``line: what``; empty if nothing is.

    Args:
        source: The program's text.
        is_module: Whether a module of this name lies beside the program: it may hold the handler.
    """
    if faults := syntax_faults(source):
        return faults
    try:
        tree = _parse(source)
    except (RecursionError, MemoryError):
        return []
    program = _Program(tree)
    handlers = program.handlers
    if len(handlers) > 1:
        where = ", ".join(f"{one.name} (line {one.lineno})" for one in handlers)
        return [f"{handlers[-1].lineno}: a function has one handler, but @function stands before several: {where}"]
    if handlers:
        return [f"{line}: {what}" for line, what in program.faults_of(handlers[0])]
    if program.may_register_elsewhere(is_module) or not _only_defines(tree.body):
        return []
    first = next((node.lineno for node in tree.body if isinstance(node, _Function)), 1)
    return [f"{first}: {NO_HANDLER}"]


def syntax_faults(source: bytes) -> list[str]:
    """Return why Python cannot read a program, as ``line: what``; empty if it can."""
    try:
        _parse(source)
    except SyntaxError as exc:
        return [f"{exc.lineno or 1}: {exc.msg}"]
    except ValueError as exc:  # a NUL
        return [f"1: {exc}"]
    except (RecursionError, MemoryError):
        pass
    return []


def find_handlers(source: bytes) -> bool:
    """Return whether a program hands a handler to the kit, as far as its text says."""
    try:
        program = _Program(_parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(program.handlers) or program.calls_kit


def is_not_served(source: bytes) -> bool:
    """Return whether a program marks a handler, but does not serve it by itself."""
    try:
        program = _Program(_parse(source))
    except (RecursionError, MemoryError):
        return False
    return bool(program.handlers) and not program.calls_kit


def serves_itself(source: bytes) -> bool:
    """Return whether a program that Python runs serves calls through the kit, as far as its text says."""
    try:
        return _Program(_parse(source)).runs_kit
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def defines_only(source: bytes) -> bool:
    """Return whether a program does nothing but define: without a handler, running it is of no effect."""
    return _only_defines(_parse(source).body)


def _parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
        compile(tree, "<program>", "exec", dont_inherit=True)  # the grammar allows more: return outside a function
    return tree


def _only_defines(body: Sequence[ast.stmt]) -> bool:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            parts = [*node.body, *node.orelse, *(getattr(node, "finalbody", ()))]
            parts += [line for caught in getattr(node, "handlers", ()) for line in caught.body]
            if not _only_defines(parts):
                return False
        elif isinstance(node, ast.Expr):
            if not isinstance(node.value, ast.Constant):
                return False
        elif not isinstance(
            node,
            ast.FunctionDef
            | ast.AsyncFunctionDef
            | ast.ClassDef
            | ast.Import
            | ast.ImportFrom
            | ast.Assign
            | ast.AnnAssign
            | ast.Pass,
        ):
            return False
    return True


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what runs when the module does: everything but the bodies of functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, ()))
            for caught in getattr(node, "handlers", ()):
                yield from _statements(caught.body)


class _Program:
    """Names of a module: what they were imported as, which classes it defines."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._imported: dict[str, str] = {}
        self._classes: dict[str, ast.ClassDef] = {}
        self._others: set[str] = set()
        for node in _statements(tree.body):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._imported[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if alias.name == "*" and node.module == _KIT:
                        self._imported["function"], self._imported["run"] = f"{_KIT}.function", f"{_KIT}.run"
                    self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.ClassDef):
                self._classes[node.name] = node
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._others.add(node.name)
        self.handlers = [
            node
            for node in _statements(tree.body)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and any(self._origin(decorator) == f"{_KIT}.function" for decorator in node.decorator_list)
        ]
        self.calls_kit = any(
            isinstance(node, ast.Call) and self._origin(node.func) in (f"{_KIT}.function", f"{_KIT}.run")
            for node in ast.walk(tree)
        )

        self.runs_kit = any(
            isinstance(node, ast.Call) and self._origin(node.func) == f"{_KIT}.run" for node in ast.walk(tree)
        )

    def _origin(self, node: ast.expr) -> str:
        """Return the dotted name that an expression was imported as; empty if it is something else."""
        if isinstance(node, ast.Name):
            return self._imported.get(node.id, "")
        if isinstance(node, ast.Attribute) and (base := self._origin(node.value)):
            return f"{base}.{node.attr}"
        return ""

    def may_register_elsewhere(self, is_module: Callable[[str], bool]) -> bool:
        """Return whether a handler may be registered by a call, by another decorator, or by a module beside this."""
        modules = {origin.partition(".")[0] for origin in self._imported.values()} - {_KIT}
        if self.calls_kit or any(is_module(module) for module in modules):
            return True
        if not self._others and any(module not in sys.stdlib_module_names for module in modules):
            return True  # nothing but imports: the handler is in one of them
        decorated = (
            decorator
            for node in _statements(self._tree.body)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for decorator in node.decorator_list
        )
        return any(self._may_register(decorator) for decorator in decorated)

    def _may_register(self, decorator: ast.expr) -> bool:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        module = self._origin(node).partition(".")[0]
        return not module or module not in sys.stdlib_module_names

    # -- what a handler asks for ---------------------------------------------------------------

    def faults_of(self, handler: _Function) -> list[tuple[int, str]]:
        """Return line and text of each parameter that no call can fill."""
        faults = []
        arguments = handler.args
        named = [*arguments.posonlyargs, *arguments.args]
        optional = {one.arg for one in named[len(named) - len(arguments.defaults) :]}
        optional |= {
            one.arg for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default
        }
        body = None
        for parameter in [*named, *arguments.kwonlyargs]:
            annotation = parameter.annotation
            if self._is_context(parameter):
                continue
            if body is not None:
                if parameter.arg not in optional:
                    what = f"{handler.name}: who should give {parameter.arg!r}? A handler takes a context and a body"
                    faults.append((parameter.lineno, what))
                continue
            body = parameter
            if annotation is not None and (fault := self._fault(annotation, frozenset(), is_body=True)):
                faults.append((parameter.lineno, f"{handler.name}({parameter.arg}): {fault}"))
        return faults

    def _is_context(self, parameter: ast.arg) -> bool:
        annotation = parameter.annotation
        if annotation is None:
            return parameter.arg in ("ctx", "context")
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = _expression(annotation.value) or annotation
        return self._origin(annotation) == f"{_KIT}.Context"

    def _fault(self, node: ast.expr, within: frozenset[str], *, is_body: bool = False) -> str | None:
        """Return why a type cannot be made from a body; ``None`` if it can, or if the text does not tell."""
        if isinstance(node, ast.Constant):
            parsed = _expression(node.value) if isinstance(node.value, str) else None
            return None if parsed is None else self._fault(parsed, within, is_body=is_body)
        if isinstance(node, ast.BinOp):
            return self._first([node.left, node.right], within)
        if isinstance(node, ast.Subscript):
            return self._fault_of_generic(node, within)
        if isinstance(node, ast.Name) and node.id in self._classes:
            return self._fault_of_class(self._classes[node.id], within)
        if isinstance(node, ast.Name) and node.id in self._others:
            return f"{node.id} is not a type; {_ADVICE}"
        return self._fault_of_name(node, is_body=is_body)

    def _fault_of_name(self, node: ast.expr, *, is_body: bool) -> str | None:
        name = self._origin(node)
        if not name and isinstance(node, ast.Name) and isinstance(getattr(builtins, node.id, None), type):
            name = node.id
        if not name or name in _PLAIN or name in _KNOWN:
            return None
        if name in _WHOLE_BODY:
            return None if is_body else f"{name} within JSON is not supported; take str"
        module = name.rpartition(".")[0]
        if name in _NO_TYPES or (not module) or self._is_of_stdlib(module):
            return f"{name} is not supported; {_ADVICE}"
        return None

    def _is_of_stdlib(self, module: str) -> bool:
        return module not in _TYPING and module.partition(".")[0] in sys.stdlib_module_names

    def _fault_of_generic(self, node: ast.Subscript, within: frozenset[str]) -> str | None:
        base = self._origin(node.value)
        last = base.rpartition(".")[2]
        if last == "Literal":
            return None
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        if last == "Annotated":
            inner = inner[:1]
        return self._fault(node.value, within) or self._first(inner, within)

    def _first(self, nodes: Sequence[ast.expr], within: frozenset[str]) -> str | None:
        return next((fault for node in nodes if (fault := self._fault(node, within))), None)

    def _fault_of_class(self, found: ast.ClassDef, within: frozenset[str]) -> str | None:
        if found.name in within:
            return None
        if not found.bases and not found.keywords and not found.decorator_list:
            return f"{found.name} is a plain class (line {found.lineno}), which JSON cannot become; {_ADVICE}"
        origins = {self._origin(node.func if isinstance(node, ast.Call) else node) for node in found.decorator_list}
        bases = {self._origin(base).rpartition(".")[2] for base in found.bases}
        if "dataclasses.dataclass" not in origins and not bases & {"TypedDict", "NamedTuple"}:
            return None
        for line in found.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                if self._is_classvar(line.annotation):
                    continue
                if fault := self._fault(line.annotation, within | {found.name}):
                    return f"{found.name}.{line.target.id} (line {line.lineno}): {fault}"
        return None

    def _is_classvar(self, node: ast.expr) -> bool:
        base = node.value if isinstance(node, ast.Subscript) else node
        return self._origin(base).rpartition(".")[2] in ("ClassVar", "InitVar", "KW_ONLY")


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
