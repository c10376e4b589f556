"""Where a function can be changed, and how: each change takes out or turns round one thing that a test should miss."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator

LOGS = frozenset({"log", "_log", "logger"})
TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass
class Site:
    """One possible change.

    Attributes:
        function: Qualified name of the function or method, without the module.
        text: The code before and after.
        apply: Change the tree from which the site was taken.
    """

    function: str
    text: str
    apply: Callable[[], None]


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield functions and methods with their qualified names; what is nested in a function belongs to it."""

    def walk(nodes: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
        for node in nodes:
            if isinstance(node, Function):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    return walk(tree.body, "")


def sites(tree: ast.Module) -> Iterator[Site]:
    """Yield every change, always in the same order."""
    for name, function in functions(tree):
        for parent in ast.walk(function):
            for field, child in _children(parent):
                for after in _changes(parent, field, child):
                    yield Site(name, _text(child, after), _replacement(parent, field, child, after))


def guard_sites(tree: ast.Module, function: str, guard: str, instead: str) -> list[Site]:
    """Return the places in a function where a piece of code stands, however it is formatted, with its replacement."""
    wanted = _parsed(guard)
    if isinstance(_parsed(instead), ast.stmt) and not isinstance(wanted, ast.stmt):
        wanted = ast.Expr(wanted)  # type: ignore[arg-type]
    found = []
    for name, node in functions(tree):
        if name != function:
            continue
        for parent in ast.walk(node):
            for field, child in _children(parent):
                if ast.dump(child) == ast.dump(wanted):
                    after = _parsed(instead)
                    found.append(Site(name, _text(child, after), _replacement(parent, field, child, after)))
    return found


def _parsed(code: str) -> ast.AST:
    """Return the expression, or the one statement, that the code is."""
    (statement,) = ast.parse(_as_body(code)).body[0].body  # type: ignore[attr-defined]
    return statement.value if isinstance(statement, ast.Expr) else statement


def _as_body(code: str) -> str:
    lines = "\n    ".join(code.splitlines())
    return f"async def body():\n    {lines}"


def _children(parent: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "args") and not isinstance(parent, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield field, child


def _replacement(parent: ast.AST, field: str, child: ast.AST, after: ast.AST) -> Callable[[], None]:
    def apply() -> None:
        new = after
        if isinstance(child, ast.stmt) and not isinstance(after, ast.stmt):
            new = ast.Expr(after)  # type: ignore[arg-type]
        ast.copy_location(new, child)
        value = getattr(parent, field)
        if isinstance(value, list):
            value[next(index for index, one in enumerate(value) if one is child)] = new
        else:
            setattr(parent, field, new)
        ast.fix_missing_locations(new)

    return apply


def _changes(parent: ast.AST, field: str, child: ast.AST) -> Iterator[ast.AST]:
    if isinstance(child, ast.stmt):
        if _can_be_left_out(child):
            yield ast.Pass()
        return
    if field == "test" and isinstance(parent, ast.If | ast.IfExp):
        yield ast.Constant(True)
        yield ast.Constant(False)
    if field == "test" and isinstance(parent, ast.While) and not isinstance(child, ast.Constant):
        yield ast.Constant(False)
    if isinstance(child, ast.BoolOp):
        yield from child.values
    if isinstance(child, ast.Compare) and len(child.ops) == 1 and type(child.ops[0]) in TURNED:
        yield ast.Compare(child.left, [TURNED[type(child.ops[0])]()], child.comparators)
    if isinstance(child, ast.BinOp) and isinstance(child.op, ast.Add | ast.Sub) and _is_number(child):
        yield ast.BinOp(child.left, ast.Sub() if isinstance(child.op, ast.Add) else ast.Add(), child.right)
    if isinstance(parent, ast.Return) and isinstance(child, ast.Constant) and isinstance(child.value, bool):
        yield ast.Constant(not child.value)


def _is_number(node: ast.BinOp) -> bool:
    """Whether it is not a text that is put together."""
    parts = [one for one in ast.walk(node) if isinstance(one, ast.Constant | ast.JoinedStr | ast.List | ast.Tuple)]
    return all(isinstance(one, ast.Constant) and isinstance(one.value, int | float) for one in parts)


def _can_be_left_out(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        value = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
        return isinstance(value, ast.Call) and not _is_log(value)
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in statement.targets)
    return isinstance(statement, ast.AugAssign | ast.Delete | ast.Raise | ast.Break | ast.Continue)


def _is_log(call: ast.Call) -> bool:
    root: ast.AST = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in LOGS


def _text(before: ast.AST, after: ast.AST) -> str:
    return f"{_short(before)} -> {_short(after)}"


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."
