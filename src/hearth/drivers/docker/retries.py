"""Retry requests that failed for a temporary reason (drivers specification 2.3)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import aiohttp
from aiodocker.exceptions import DockerError

from hearth.aio.clock import Clock, pause
from hearth.drivers.docker.errors import temporary
from hearth.telemetry.logs import get_logger

#: What an operation on the Engine can fail with. A ``TimeoutError`` is an ``OSError``, too.
ENGINE_ERRORS: Final = (DockerError, aiohttp.ClientError, OSError)
_FIRST_S: Final = 0.025
_LONGEST_S: Final = 3.2

_log = get_logger(__name__)
T = TypeVar("T")


def delays(first_s: float = _FIRST_S, longest_s: float = _LONGEST_S) -> Iterator[float]:
    """Yield the seconds before each next try: doubling, with jitter so that clients do not return together."""
    delay_s = first_s
    while True:
        yield delay_s * random.uniform(0.5, 1.0)
        delay_s = min(2 * delay_s, longest_s)


async def retrying(
    clock: Clock, name: str, call: Callable[[], Awaitable[T]], again: Callable[[Exception], bool] = temporary
) -> T:
    """Call until it works, or fails for a reason that stays. The phase around it sets the limit.

    Args:
        clock: For the waits between tries.
        name: Of the operation, for the log.
        call: One try.
        again: Whether an error is worth another try.
    """
    for tries, delay_s in enumerate(delays(), start=1):
        try:
            return await call()
        except ENGINE_ERRORS as exc:
            if not again(exc):
                raise
            warn(name, tries, exc)
        await pause(clock, delay_s)
    raise AssertionError("delays never end")


def warn(name: str, retries: int, exc: Exception) -> None:
    """Tell the operator about one more try."""
    _log.warning("docker temporary error, retrying", call=name, docker_call_retries=retries, error=str(exc))
