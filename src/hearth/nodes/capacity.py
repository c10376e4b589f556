"""The memory and CPU that the containers of a node may use together."""

from __future__ import annotations

from typing import Final

from hearth.agent.resources import pools
from hearth.host import machine
from hearth.models.errors import StartUpError
from hearth.models.function import Amount
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger

_MIB: Final = 1024 * 1024
#: A pool below this is worth a warning: it holds no function of the default size.
_SMALL: Final = Amount(128, 100)

_log = get_logger(__name__)


def capacity(settings: Settings) -> Amount:
    """Return the capacity that the settings allow; where they leave it open, that of the machine.

    Raises:
        StartUpError: Calls of one kind could never run.
    """
    memory, cpu = settings.max_total_memory, settings.max_total_cpu
    if memory is None or cpu is None:
        found = machine.detect()
        memory, cpu = memory or found.memory_mib * _MIB, cpu or found.cpu_milli
    total = Amount(memory // _MIB, cpu)
    check_pools(total)
    return total


def check_pools(total: Amount) -> None:
    """Check that calls of both kinds can run with this capacity, and log it.

    Raises:
        StartUpError: A pool would be empty.
    """
    _log.debug("resources for containers", memory_mib=total.memory_mib, cpu_milli=total.cpu_milli)
    for name, pool in zip(("sync", "async"), pools(total), strict=True):
        if pool.memory_mib <= 0 or pool.cpu_milli <= 0:
            raise StartUpError(
                f"Not enough memory or CPU for {name} calls: {total.memory_mib} MiB and {total.cpu_milli} milli-CPUs "
                "in all; see FN_MAX_TOTAL_MEMORY and FN_MAX_TOTAL_CPU"
            )
        if not _SMALL.fits(pool):
            _log.warning("severely limited resources", pool=name, memory_mib=pool.memory_mib, cpu_milli=pool.cpu_milli)
