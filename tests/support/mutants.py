"""Code with one guard taken out: a test that guards something has to notice."""

from __future__ import annotations

import inspect
import types


def mutant(module: types.ModuleType, guard: str, instead: str) -> types.ModuleType:
    """A copy of a module in which ``guard``, found exactly once in its source, is replaced."""
    source = inspect.getsource(module)
    assert source.count(guard) == 1, f"{module.__name__} has {source.count(guard)} times: {guard}"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(guard, instead), f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    return copy
