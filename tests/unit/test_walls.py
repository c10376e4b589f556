"""The rules of the house that no linter knows (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from hearth.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = {path: path.read_text() for path in SOURCES}

#: What the interfaces are called whose implementations only a composition chooses.
BACKENDS = frozenset({"Driver", "Datastore", "Queue", "LogStore"})


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the sources by their paths, parsed; only the worker that runs these tests needs them."""
    return {path.relative_to(ROOT / "src").as_posix(): ast.parse(text) for path, text in TEXTS.items()}


def found_in_sources(find: Callable[[ast.Module], Iterable[ast.AST]], *, but_in: tuple[str, ...] = ()) -> list[str]:
    """Return the places in the sources that a rule finds, except in files and folders that it does not hold for."""
    return [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in trees().items()
        if not name.startswith(but_in)
        for node in find(tree)
        if isinstance(node, ast.expr)
    ]


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_imports_a_private_name() -> None:
    private = [
        f"{path}: {name}"
        for path, tree in trees().items()
        for name in imported_names(tree)
        if any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]
    assert not private


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_each_setting_is_read(name: str) -> None:
    reads = re.compile(rf"\.{name}\b")
    assert any(reads.search(text) for text in TEXTS.values())


# -- tasks ------------------------------------------------------------------------------------------------------------


def last_name(node: ast.expr | None) -> str:
    """Return ``c`` of ``a.b.c``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def task_groups(tree: ast.Module) -> set[str]:
    """Return the names that a module gives to task groups: variables, attributes and parameters."""
    found: set[str] = set()
    bound: list[ast.expr]
    made: ast.expr | None
    for node in ast.walk(tree):
        match node:
            case ast.withitem(context_expr=ast.Call(func=made), optional_vars=ast.expr() as name):
                bound = [name]
            case ast.Assign(value=ast.Call(func=made), targets=bound):
                pass
            case ast.AnnAssign(annotation=made, target=name):
                bound = [name]
            case ast.arg(annotation=made):
                bound = [ast.Name(node.arg)]
            case _:
                continue
        if last_name(made) == "TaskGroup":
            found |= set(map(last_name, bound))
    for node in ast.walk(tree):
        match node:
            case ast.Assign(value=ast.Name(id=given), targets=bound) if given in found:  # handed in, and kept
                found |= set(map(last_name, bound))
    return found


def task_starts(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what starts tasks, or is called by another name in order to, outside a task group."""
    groups = task_groups(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="create_task", value=owner) if last_name(owner) not in groups:
                yield node
            case ast.Attribute(attr="ensure_future"):
                yield node
            case ast.Call(func=ast.Attribute(attr="Task", value=ast.Name(id="asyncio")) | ast.Name(id="Task")):
                yield node
            case ast.ImportFrom(module="asyncio", names=names):
                yield from (ast.Name(name.name) for name in names if name.name in {"create_task", "ensure_future"})
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value="create_task"), *_]):
                yield node


@pytest.mark.parametrize(
    "text",
    [
        "asyncio.get_running_loop().create_task(work())",
        "loop.create_task(work())",
        "self._loop.create_task(work())",
        "asyncio.create_task(work())",
        "asyncio.ensure_future(work())",
        "asyncio.Task(work())",
        "from asyncio import create_task",
        "start = loop.create_task\nstart(work())",
        "group = asyncio.get_running_loop()\ngroup.create_task(work())",
        "def start(group: asyncio.AbstractEventLoop):\n    group.create_task(work())",
        "getattr(loop, 'create_task')(work())",
    ],
)
def test_the_wall_of_tasks_stops(text: str) -> None:
    assert list(task_starts(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "async def run():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(work())",
        "self._group = asyncio.TaskGroup()\nself._group.create_task(work())",
        "def start(tasks: asyncio.TaskGroup):\n    tasks.create_task(work())",
        "def __init__(self, tasks: asyncio.TaskGroup):\n    self._tasks = tasks\nself._tasks.create_task(work())",
        "task: asyncio.Task[None] = background.start(work())",
    ],
)
def test_the_wall_of_tasks_lets_through(text: str) -> None:
    assert not list(task_starts(ast.parse(text)))


def test_only_the_background_starts_tasks_outside_a_task_group() -> None:
    # The kit runs where Python has no task groups; each connection owns its one task.
    assert not found_in_sources(task_starts, but_in=("hearth/aio/background.py", "hearth_fdk/sharing.py"))


# -- private names ----------------------------------------------------------------------------------------------------


#: Attributes that the standard library documents for everybody.
PUBLIC = frozenset({"_fields", "_asdict", "_replace", "_make"})


#: Names that Python documents, although they begin with an underscore.
PUBLIC_BY_PLATFORM = frozenset({"_exit", "_getframe", "_current_frames"})
#: Tests that still use private names. This list gets shorter, never longer.
STILL_PRIVATE = frozenset(
    {
        "integration/test_docker_engine.py",
        "integration/test_remote_access.py",
        "integration/test_runner_api.py",
        "support/served_api.py",
    }
)


def private_by_text(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield accesses to private attributes whose names are texts, which the linter takes for any other text."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[owner, ast.Constant(value=str(name)), *_],
            ):
                names = [name] if last_name(owner) not in {"self", "cls"} else []
            case ast.Call(func=made, args=args) if last_name(made) in {"attrgetter", "methodcaller"}:
                names = [str(arg.value) for arg in args if isinstance(arg, ast.Constant)]
            case _:
                continue
        parts = {part for name in names for part in name.split(".")} - PUBLIC
        if any(part.startswith("_") and not part.endswith("__") for part in parts):
            yield node


@pytest.mark.parametrize(
    "text", ["getattr(library, '_secret')", "setattr(app, '_x', 1)", "operator.attrgetter('writer._transport')"]
)
def test_the_wall_of_private_names_stops(text: str) -> None:
    assert list(private_by_text(ast.parse(text)))


def test_no_private_attribute_is_used_by_its_text() -> None:
    assert not found_in_sources(private_by_text)


def private_uses(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what a test reads or replaces that its owner keeps to itself: by attribute, by import, or by its text."""
    yield from private_by_text(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                continue
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(module=str(module), names=imported):
                names = [*module.split("."), *(alias.name for alias in imported)]
            case ast.Call(func=ast.Attribute(attr="setattr" | "patch" | "object" | "delattr"), args=args):
                texts = [str(arg.value) for arg in args if isinstance(arg, ast.Constant)]
                names = [text.rpartition(".")[2] for text in texts]
            case _:
                continue
        for name in names:
            if name.startswith("_") and not name.endswith("__") and name not in PUBLIC | PUBLIC_BY_PLATFORM:
                yield node if isinstance(node, ast.expr) else ast.Name(name)


@pytest.mark.parametrize(
    "text",
    [
        "store._database.transaction",
        "monkeypatch.setattr(module, '_LIMIT_S', 1)",
        "monkeypatch.setattr('hearth.queues.redis._ANSWER_S', 1)",
        "mock.patch('hearth.server.api._log')",
        "mock.patch.object(store, '_bucket')",
        "from hearth.sql.sqlite import _PAGES",
        "getattr(store, '_database')",
    ],
)
def test_the_wall_of_private_names_stops_a_test(text: str) -> None:
    assert list(private_uses(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["self._store", "super()._open()", "os._exit(1)", "row._asdict()", "spec.__struct_fields__"]
)
def test_the_wall_of_private_names_lets_a_test_through(text: str) -> None:
    assert not list(private_uses(ast.parse(text)))


def test_tests_observe_what_everybody_sees() -> None:
    found = {
        (path.relative_to(ROOT / "tests").as_posix(), ast.unparse(use))
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for use in private_uses(ast.parse(path.read_text()))
    }
    files = {file for file, _ in found}
    assert not [use for use in sorted(found) if use[0] not in STILL_PRIVATE]
    assert files >= STILL_PRIVATE, "these observe what everybody sees: take them off the list"


# -- the environment --------------------------------------------------------------------------------------------------


def environment_reads(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield what reads or writes the environment in any way."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, value=ast.Name(id="os" | "posix")) if name in names:
                yield node
            case ast.ImportFrom(module="os" | "posix", names=imported):
                yield from (ast.Name(alias.name) for alias in imported if alias.name in names)
            case ast.Import(names=imported):
                yield from (
                    ast.Name(alias.name) for alias in imported if alias.asname and alias.name in {"os", "posix"}
                )


@pytest.mark.parametrize(
    "text", ["os.environ['A']", "os.getenvb(b'A')", "from os import environb", "import os as system", "os.putenv(a, b)"]
)
def test_the_wall_of_the_environment_stops(text: str) -> None:
    assert list(environment_reads(ast.parse(text)))


def test_only_the_settings_read_the_environment() -> None:
    assert not found_in_sources(environment_reads, but_in=("hearth/settings.py", "hearth_fdk/"))


# -- composition ------------------------------------------------------------------------------------------------------


def implementations(trees: Iterable[ast.Module]) -> set[str]:
    """Return the classes that implement a backend's interface, also through one of their bases."""
    bases = {
        node.name: {last_name(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while new := {name for name, its in bases.items() if its & (BACKENDS | found)} - found:
        found |= new
    return found - BACKENDS


@functools.cache
def concrete() -> set[str]:
    """Return the backends of the sources."""
    return implementations(trees().values())


def constructions(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield constructions of concrete drivers, datastores, queues and log stores."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and last_name(node.func) in concrete())


def test_backends_are_found() -> None:
    assert {"DockerDriver", "LocalDriver", "RedisQueue", "SqlDatastore"} <= concrete()


def test_the_wall_of_composition_stops_a_construction() -> None:
    assert list(constructions(ast.parse("driver = docker.DockerDriver(host)")))


def test_only_nodes_and_backends_construct_backends() -> None:
    #: A backend's own package opens it by its URL; the table of URLs of a kind is in the kind's package.
    assert not found_in_sources(
        constructions,
        but_in=("hearth/nodes/", "hearth/testing/", "hearth/drivers/", "hearth/queues/", "hearth/stores/"),
    )
