"""A pytest plugin: the garbage collector does not walk through what is there for the whole run.

Imports and the collection of tests make a million objects that stay. Walking through them again and again takes a large
part of the collection, and of each test that calls the garbage collector.
"""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

gc.disable()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave out what is there when all tests are collected, and look through what comes."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
