"""What the agent may rely on, whatever makes the containers (drivers specification 1).

A driver turns a :class:`ContainerSpec` into a :class:`Container` and knows nothing of calls or routes. What differs
between drivers is data (:class:`Capabilities`), never a "not supported" method.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from hearth.models.errors import InternalError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What is to run.

    Attributes:
        id: 26-character id, unique; also the container's name.
        image: The reference as on the route.
        env: Passed byte for byte.
        memory_mib: Hard limit, in MiB, without swap.
        cpu_milli: Thousandths of a core; 0 means unlimited.
        labels: For people and for cleaning up (app, path).
    """

    id: str
    image: str
    env: Mapping[str, str]
    memory_mib: int
    cpu_milli: int = 0
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended.

    Attributes:
        code: Exit code; a signal ``n`` shows as ``128 + n``.
        oom: The memory limit killed it, and the platform did not.
        error: What the backend said, for the log.
    """

    code: int
    oom: bool = False
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class StatsSample:
    """One look at a container's resource use: the nine metrics of the Call model, unsigned integers."""

    timestamp: dt.datetime
    metrics: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do here and now; the rest of Hearth asks this, never for the class."""

    limits_memory: bool
    limits_cpu: bool
    isolates_network: bool
    stats: bool
    freeze: bool = False
    stderr_lags: bool = False  # it may come after an answer that was written later
    images: bool  # container images; otherwise bundles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLimits:
    """How long each phase of a container's life may take, in seconds, whatever its caller's deadline."""

    pull_s: float = 600.0
    create_s: float = 120.0
    start_s: float = 120.0
    remove_s: float = 120.0


class DriverError(InternalError):
    """A container could not be made, started or removed; the text says why, for the log."""


class ImageNotFound(DriverError):
    """There is no such image; nobody refused it. ``reason`` is fit for the client."""

    def __init__(self, image: str, reason: str = "no such image") -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.reason = image, reason


class ImageRefused(DriverError):
    """The registry refused the image with a status of its own (401, 403, 404)."""

    def __init__(self, image: str, status: int, reason: str) -> None:
        super().__init__(f"{image}: {status} {reason}")
        self.image, self.status, self.reason = image, status, reason


class ImageError(DriverError):
    """The image could not be had for another reason: ``status`` is what a client should see (500, 502)."""

    def __init__(self, image: str, reason: str, status: int = 500) -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.status, self.reason = image, status, reason


class StartFailed(DriverError):
    """The container was made but did not start.

    Args:
        reason: Short, fit for the client where ``image_fault`` is true.
        image_fault: The image is the cause (no such executable, not executable), not the platform.
    """

    def __init__(self, reason: str, *, image_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.image_fault = reason, image_fault


class DriverUnavailable(DriverError):
    """The backend cannot be reached."""


class OutOfTime(DriverError):
    """A phase (pull, create, start, remove) took longer than its own limit."""

    def __init__(self, phase: str, limit_s: float) -> None:
        super().__init__(f"{phase} took longer than {limit_s:g} s")
        self.phase, self.limit_s = phase, limit_s


class StreamClosed(InternalError):
    """The other end of a container's stream is gone. An error of this container only."""


class ByteReader(Protocol):
    """A container's stdout or stderr. One owner at a time either reads or watches; never both.

    Bytes that nobody took yet wait in a bounded buffer; when that is full the container is not read further, so a
    slow reader holds the function back instead of filling memory.

    A stream ends when the function closes it, or with the container at the latest: an engine in between may keep it
    open as long as the container lives.
    """

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes and take up to ``max_bytes`` of them; ``b""`` at the end. Cancelling loses nothing."""

    def read_nowait(self, max_bytes: int = 65536) -> bytes | None:
        """Take what has arrived, without waiting; ``None`` if nothing has, ``b""`` at the end."""

    def quiet(self) -> bool:
        """Whether nothing waits to be read, neither here nor unseen in the kernel, and the stream has not ended.

        Asks the kernel (about a microsecond), so it is true of this very moment: what the container wrote before is
        not overlooked because the event loop has not turned since.
        """

    def unseen(self) -> bool:
        """Whether bytes, or the end, wait in the kernel: a turn of the event loop delivers them."""

    def watch(self, sink: Callable[[bytes], None] | None) -> None:
        """Hand every byte to ``sink`` as it arrives (``b""`` once at the end), what is buffered first; ``None`` stops.

        The sink is called on the event loop and must not block or raise.
        """


class ByteWriter(Protocol):
    """A container's stdin. That the function has closed it may be known only when the container ends, as above."""

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits while the container is not reading (bounded buffer).

        Returns without suspending while there is room.

        Raises:
            StreamClosed: The container closed its stdin or is gone.
        """

    @property
    def pending(self) -> int:
        """Bytes accepted by :meth:`write` that have not yet left this process; 0 means all were handed over."""

    def close(self) -> None:
        """Give the function an end of file, once what was written has been handed over. Idempotent."""


class Container(abc.ABC):
    """One container, prepared by :meth:`Driver.prepare`: not yet started. Whoever prepared it must remove it."""

    id: str
    stdin: ByteWriter
    stdout: ByteReader
    stderr: ByteReader

    @abc.abstractmethod
    async def start(self) -> None:
        """Attach the streams, then start: not a byte of early output is lost.

        Raises:
            StartFailed: It did not start.
            OutOfTime: The phase took longer than its limit.
        """

    @abc.abstractmethod
    async def wait(self) -> Exit:
        """Wait until the container has ended and its output has been delivered to the streams. Many may wait.

        Output that nobody reads does not hold this up for ever: unread bytes stay in the streams' buffers.
        """

    @property
    @abc.abstractmethod
    def exited(self) -> Exit | None:
        """How it ended, or ``None`` while it lives (or is not yet known to have ended)."""

    @abc.abstractmethod
    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back once, on the event loop, when it ends; at once (in the next tick) if it has ended."""

    @abc.abstractmethod
    def stats(self) -> AsyncIterator[StatsSample]:
        """About one sample a second; ends with the container. Ends at once where the driver has none."""

    @abc.abstractmethod
    async def kill(self) -> None:
        """End it now. Idempotent; no error if it is gone or was never started."""

    @abc.abstractmethod
    async def remove(self) -> None:
        """Kill it if need be and free everything it holds; returns when that is really free. Idempotent.

        Never raises for a container that is gone.

        Raises:
            OutOfTime: It could not be removed within the phase's limit; the driver goes on trying on its own.
        """


class Driver(abc.ABC):
    """Makes containers."""

    name: str
    capabilities: Capabilities

    @abc.abstractmethod
    async def open(self) -> None:
        """Make sure the backend is usable, and remove leftovers of earlier runs of this node.

        Raises:
            DriverUnavailable: With one clear sentence for the operator.
        """

    async def check(self) -> None:  # noqa: B027  # what has no backend always answers
        """Make sure the backend still answers.

        Raises:
            DriverUnavailable: It does not.
        """

    async def is_stale(self, container: Container) -> bool:
        """Whether its image was built anew since it was made; false where that cannot be told."""
        return False

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections and background work. Every container has been removed before."""

    @abc.abstractmethod
    async def prepare(self, spec: ContainerSpec) -> Container:
        """Have the image ready (fetched at most once at a time, all who wait share the result) and make a container.

        On error or cancellation nothing is left behind.

        Raises:
            ImageNotFound: There is no such image.
            ImageRefused: The registry refused it.
            ImageError: It could not be had for another reason.
            StartFailed: The container could not be made.
            DriverUnavailable: The backend is gone.
            OutOfTime: Pull or create took longer than its limit.
        """
