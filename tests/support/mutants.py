"""Code with one guard taken out: a test that guards something has to notice."""

from __future__ import annotations

import asyncio
import inspect
import types

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def mutant(module: types.ModuleType, guard: str, instead: str) -> types.ModuleType:
    """A copy of a module in which ``guard``, found exactly once in its source, is replaced."""
    source = inspect.getsource(module)
    assert source.count(guard) == 1, f"{module.__name__} has {source.count(guard)} times: {guard}"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(guard, instead), f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    return copy


def assert_noticed(machine: type[RuleBasedStateMachine]) -> None:
    """Play a state machine over a mutant: it must fail, the same way each time."""
    once = settings(
        max_examples=100,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, asyncio.InvalidStateError)):
        run_state_machine_as_test(machine, settings=once)
