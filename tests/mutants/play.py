"""Play mutants: run the tests once, note which functions each calls, then change one function after the other.

Each mutant is a fork of this process in which one function has other code, so that nothing is imported again. It is
caught if one of the tests fails that call the function, or does not end.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest

from tests.mutants.guards import GUARDS, TEXTS_OF_REDIS
from tests.mutants.report import Result, write
from tests.mutants.sites import Site, functions, guard_sites, sites

ROOT: Final = Path(__file__).parents[2] / "src" / "hearth"
#: Seconds of tests that are spent on one mutant, as the tests took without it; fast tests come first. Guards get all.
MOST_S: Final = 30.0
#: A mutant whose tests take so many times as long, and these seconds, hangs, which shows it; at most so many seconds.
PATIENCE: Final = 3
GRACE_S: Final = 10.0
LONGEST_S: Final = 120.0
AT_ONCE: Final = 2

SURVIVED, CAUGHT, UNPLAYABLE = 0, 1, 2
_Cached = type(functools.lru_cache(lambda: None))


class Mutant:
    """One changed function.

    Attributes:
        module: Without ``hearth.``.
        breaks: What happens with it, if it is a guard.
    """

    def __init__(self, module: str, function: str, text: str, install: Callable[[], None], breaks: str = "") -> None:
        self.module = module
        self.function = function
        self.text = text
        self.install = install
        self.breaks = breaks


class Player:
    """The plugin.

    Args:
        modules: Whose functions are changed, in each way; without ``hearth.``.
        guards: Play the guards of these modules only.
    """

    def __init__(self, modules: list[str], *, guards: bool) -> None:
        self._modules = modules
        self._only_guards = guards
        self._failed = False
        self._seen: set[str] = set()
        self._callers: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        self._took: dict[pytest.Item, float] = {}

    def pytest_configure(self) -> None:
        """Have generated examples be the same in each run."""
        hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
        hypothesis.settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self._failed = self._failed or report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests as they are, then with each mutant."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self._measure(session.items)
        missing, mutants = self._mutants()
        results = [*missing]
        running: dict[int, tuple[Mutant, float]] = {}
        try:
            for mutant in mutants:
                if len(running) == AT_ONCE:
                    results.append(self._next_end(running))
                tests = self._tests_of(mutant)
                limit_s = min(LONGEST_S, GRACE_S + PATIENCE * sum(self._took[one] for one in tests))
                running[self._fork(mutant, tests)] = mutant, time.monotonic() + limit_s
            while running:
                results.append(self._next_end(running))
        finally:
            for child in running:
                os.killpg(child, signal.SIGKILL)
            write(results)
        return True

    # -- the tests as they are ------------------------------------------------------------------------------------

    def _measure(self, items: list[pytest.Item]) -> None:
        names = {id(one.__code__): name for name, ones in self._functions().items() for one in ones}

        def look(frame: types.FrameType, event: str, arg: Any) -> None:
            if event == "call" and (name := names.get(id(frame.f_code))) is not None:
                self._seen.add(name)

        for item, then in itertools.pairwise([*items, None]):
            assert item is not None
            self._seen, self._failed = set(), False
            begun = time.perf_counter()
            threading.setprofile(look)
            sys.setprofile(look)
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
            self._took[item] = time.perf_counter() - begun
            if not self._failed:
                for name in self._seen:
                    self._callers[name].append(item)

    @functools.cache  # noqa: B019  # one player lives as long as the process
    def _functions(self) -> dict[str, list[types.FunctionType]]:
        """Return the functions of the modules by ``module:qualified name``."""
        for module in self._modules:
            importlib.import_module(f"hearth.{module}")
        wanted = {f"hearth.{module}" for module in self._modules}
        found: defaultdict[str, list[types.FunctionType]] = defaultdict(list)
        for one in gc.get_objects():
            if isinstance(one, types.FunctionType) and one.__module__ in wanted:
                found[f"{one.__module__.removeprefix('hearth.')}:{one.__qualname__}"].append(one)
        return found

    def _tests_of(self, mutant: Mutant) -> list[pytest.Item]:
        items = self._took if mutant.function.endswith(".lua") else self._callers[f"{mutant.module}:{mutant.function}"]
        chosen = [one for one in items if not mutant.function.endswith(".lua") or "[redis" in one.nodeid]
        spent = itertools.accumulate(sorted(self._took[one] for one in chosen))
        count = len(chosen) if mutant.breaks else sum(1 for so_far in spent if so_far <= MOST_S)
        return sorted(chosen, key=self._took.__getitem__)[: max(1, count)]

    # -- mutants --------------------------------------------------------------------------------------------------

    def _mutants(self) -> tuple[list[Result], list[Mutant]]:
        missing: list[Result] = []
        mutants: list[Mutant] = []
        for guard in GUARDS:
            if guard.module not in self._modules:
                continue
            path = _file(guard.module)
            if guard.code:
                found = len(guard_sites(ast.parse(path.read_text()), guard.function, guard.code, guard.instead))
            else:
                found = sum(name == guard.function for name, _ in functions(ast.parse(path.read_text())))
            if found != 1:
                missing.append(Result(guard.module, guard.function, guard.code, guard.breaks, f"found {found} times"))
                continue
            text = f"{guard.code or 'whole body'} -> {guard.instead}"
            mutants.append(
                Mutant(guard.module, guard.function, text, functools.partial(self._install_guard, guard), guard.breaks)
            )
        if "queues.redis" in self._modules:
            for breaks, text, instead in TEXTS_OF_REDIS:
                install = functools.partial(_install_script, text, instead)
                mutants.append(Mutant("queues.redis", "redis.lua", f"{text} -> {instead}", install, breaks))
        if not self._only_guards:
            mutants += [one for module in self._modules for one in self._changes(module)]
        return missing, mutants

    def _changes(self, module: str) -> Iterator[Mutant]:
        for number, site in enumerate(sites(ast.parse(_file(module).read_text()))):
            if self._callers[f"{module}:{site.function}"]:
                install = functools.partial(self._install_change, module, number)
                yield Mutant(module, site.function, site.text, install)

    def _install_change(self, module: str, number: int) -> None:
        tree = ast.parse(_file(module).read_text())
        self._install(module, tree, next(itertools.islice(sites(tree), number, None)))

    def _install_guard(self, guard: Any) -> None:
        tree = ast.parse(_file(guard.module).read_text())
        if guard.code:
            (site,) = guard_sites(tree, guard.function, guard.code, guard.instead)
        else:
            (node,) = [node for name, node in functions(tree) if name == guard.function]
            site = Site(guard.function, "", lambda: setattr(node, "body", ast.parse(guard.instead).body))
        self._install(guard.module, tree, site)

    def _install(self, module: str, tree: ast.Module, site: Site) -> None:
        """Give the function its changed code. Raises ``ValueError`` if that needs other closed-over names."""
        site.apply()
        changed = compile(ast.fix_missing_locations(tree), str(_file(module)), "exec")
        (code,) = [one for one in _codes(changed) if one.co_qualname == site.function]
        for function in self._functions()[f"{module}:{site.function}"]:
            function.__code__ = code
        for one in gc.get_objects():
            if isinstance(one, _Cached):
                one.cache_clear()

    # -- forks ----------------------------------------------------------------------------------------------------

    def _fork(self, mutant: Mutant, tests: list[pytest.Item]) -> int:
        if (child := os.fork()) != 0:
            return child
        outcome = UNPLAYABLE
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            mutant.install()
            outcome = CAUGHT if self._fails(tests) else SURVIVED
        finally:
            os._exit(outcome)

    def _fails(self, tests: list[pytest.Item]) -> bool:
        self._failed = False
        for item, then in itertools.pairwise([*tests, None]):
            assert item is not None
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
            except BaseException:
                return True
            if self._failed:
                return True
        return False

    def _next_end(self, running: dict[int, tuple[Mutant, float]]) -> Result:
        while True:
            for child, (mutant, limit) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                hangs = not ended and time.monotonic() > limit
                if not ended and not hangs:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)  # and the servers that it started
                if hangs:
                    os.waitpid(child, 0)
                del running[child]
                code = CAUGHT if hangs or os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
                outcome = {SURVIVED: "survived", CAUGHT: "caught", UNPLAYABLE: "cannot be played"}[code]
                if code != CAUGHT or mutant.breaks:
                    print(f"{outcome}: {mutant.module} {mutant.function}: {mutant.breaks or mutant.text}", flush=True)
                return Result(mutant.module, mutant.function, mutant.text, mutant.breaks, outcome)
            time.sleep(0.01)


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the codes of functions and methods; those within functions come with these."""
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield one
            yield from _codes(one)


def _install_script(text: str, instead: str) -> None:
    from hearth.queues import redis

    script = redis.SCRIPT.read_text()
    assert script.count(text) == 1
    changed = Path(tempfile.mkdtemp()) / "mutant.lua"
    changed.write_text(script.replace(text, instead))
    redis.SCRIPT = changed  # type: ignore[misc]
