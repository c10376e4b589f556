"""The interface of drivers and the promises that each driver keeps (drivers specification 1).

A driver turns a :class:`ContainerSpec` into a :class:`Container` and knows nothing of calls or routes. What differs
between drivers is data (:class:`Capabilities`), never a "not supported" method.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from hearth.models.addresses import IPNetwork
from hearth.models.errors import InternalError
from hearth.models.registry_login import RegistryLogin

#: Returns the login of an app at a registry; ``None`` if it has stored none.
FindLogin = Callable[[str], Awaitable[RegistryLogin | None]]
#: Gets the image of a reference from where a node has its images, unless that has none either.
FetchImage = Callable[[str], Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """The container to make.

    Attributes:
        id: 26-character id, unique; also the container's name.
        image: The reference as on the route.
        app: Identity of the app that it runs for. Drivers keep containers of different apps apart by it; an app that is
            deleted and created again is another one.
        env: Passed byte for byte.
        memory_mib: Hard limit, in MiB, without swap.
        cpu_milli: Thousandths of a core; 0 means unlimited.
        labels: For people and for cleaning up (app, path).
        secrets: By name; text without NUL. Variables of the environment that win over ``env``, or with
            ``secrets_as_files`` files in ``/run/secrets`` that only the function's user reads, and no disk holds.
        find_login: Returns the login that the app has stored for a registry, ``host[:port]``. Asked when an image is
            pulled, and never for the image of another app.
        listens: It takes calls on a socket: its channel is a :class:`~hearth.drivers.sockets.Listener`, its stdin is
            empty, and its stdout is a part of its stderr. Otherwise its channel is a :class:`Stdio`.
    """

    id: str
    image: str
    env: Mapping[str, str]
    memory_mib: int
    cpu_milli: int = 0
    app: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    secrets_as_files: bool = False
    find_login: FindLogin | None = dataclasses.field(default=None, compare=False, repr=False)
    listens: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """The end of a container.

    Attributes:
        code: Exit code; a signal ``n`` shows as ``128 + n``.
        oom: The memory limit killed it, and the platform did not.
        error: The message of the backend, for the log.
        start_fault: Why the image's program could not be executed, fit for the client; empty if it was.
    """

    code: int
    oom: bool = False
    error: str = ""
    start_fault: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class StatsSample:
    """One look at a container's resource use: the nine metrics of the Call model, unsigned integers."""

    timestamp: dt.datetime
    metrics: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The abilities of a driver on this machine; the rest of Hearth asks these, never for the class."""

    limits_memory: bool
    limits_cpu: bool
    isolates_network: bool
    stats: bool
    freeze: bool = False  # a container can be paused between calls
    stderr_lags: bool = False  # it may come after an answer that was written later
    unread_input: bool = False  # stdin knows how many bytes the container has not read
    images: bool  # container images; otherwise bundles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLimits:
    """The longest time of each phase of a container's life, in seconds, independent of its caller's deadline.

    Attributes:
        ready_s: From the start of a container that listens until it takes a connection.
    """

    pull_s: float = 600.0
    create_s: float = 120.0
    start_s: float = 120.0
    ready_s: float = 5.0
    remove_s: float = 120.0


class DriverError(InternalError):
    """A container could not be made, started or removed; the text says why, for the log."""


class ImageNotFound(DriverError):
    """The image does not exist; an image that a registry refuses is another error. Clients may see ``reason``."""

    def __init__(self, image: str, reason: str = "no such image") -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.reason = image, reason


class ImageRefused(DriverError):
    """The registry refused the image with a status of its own (401, 403, 404)."""

    def __init__(self, image: str, status: int, reason: str) -> None:
        super().__init__(f"{image}: {status} {reason}")
        self.image, self.status, self.reason = image, status, reason


class ImageError(DriverError):
    """The image is not available for another reason; ``status`` is for the client, 0 if none is known."""

    def __init__(self, image: str, reason: str, status: int = 0) -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.status, self.reason = image, status, reason


class ImageHasVolumes(DriverError):
    """The image declares volumes, and this node takes none."""

    def __init__(self, image: str, paths: Sequence[str]) -> None:
        super().__init__(f"{image}: it declares volumes: {', '.join(paths)}")


class StartFailed(DriverError):
    """The container was made but did not start.

    Args:
        reason: Short, fit for the client where ``image_fault`` is true.
        image_fault: The image or the function's settings are the cause (no such executable, an environment variable
            without a name), not the platform.
    """

    def __init__(self, reason: str, *, image_fault: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.image_fault = reason, image_fault


class DriverUnavailable(DriverError):
    """The backend cannot be reached."""


#: The phase in which the image is fetched.
PULL: Final = "pull"


class OutOfTime(DriverError):
    """A phase (pull, create, start, remove) took longer than its own limit."""

    def __init__(self, phase: str, limit_s: float) -> None:
        super().__init__(f"{phase} took longer than {limit_s:g} s")
        self.phase, self.limit_s = phase, limit_s


class NotReady(DriverError):
    """A container does not take calls.

    Attributes:
        opening: The end of what it has written so far.
    """

    opening: bytes = b""


class NeverListened(NotReady):
    """The container has not made its socket in time."""


class BadSocket(NotReady):
    """The container has made something else than a socket in its own folder."""


class EndedEarly(NotReady):
    """The container ended before it made its socket."""


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
        """Return whether nothing waits to be read, neither here nor unseen in the kernel, and the stream has not ended.

        Asks the kernel (about a microsecond), so it is true of this very moment: what the container wrote before is
        not overlooked because the event loop has not turned since.
        """

    def unseen(self) -> object:
        """Return a true value if bytes, or the end, wait in the kernel: a turn of the event loop delivers them.

        A caller that asks often may keep this method for as long as the container lives.
        """

    def watch(self, sink: Callable[[bytes], None] | None, *, unused: bytes = b"") -> None:
        """Hand every byte to ``sink`` as it arrives (``b""`` once at the end), what is buffered first; ``None`` stops.

        The sink is called on the event loop, within the transport's own callback, and must not block or raise. It may
        stop the watch.

        Args:
            sink: Takes the bytes.
            unused: Bytes that the sink before was given and did not use; they come first again.
        """


class ByteWriter(Protocol):
    """A container's stdin. That the function has closed it may be known only when the container ends, as above."""

    async def write(self, data: bytes) -> None:
        """Hand bytes over; wait while the container is not reading (bounded buffer).

        Returns without suspending while there is room.

        Raises:
            StreamClosed: The container closed its stdin or is gone.
        """

    @property
    def pending(self) -> int:
        """Bytes accepted by :meth:`write` that have not yet left this process; 0 means all were handed over."""

    def unread(self) -> int | None:
        """Return how many bytes the container has not read yet, those of :attr:`pending` included.

        Asks the kernel, so it is true of this very moment; ``None`` where nobody can tell.
        """

    def close(self) -> None:
        """Give the function an end of file, once what was written has been handed over. Idempotent."""


class Answers(Protocol):
    """The source of answers, for the owner of a container between calls: nothing should come then."""

    def watch(self, sink: Callable[[bytes], None] | None) -> None:
        """Hand every byte to ``sink`` as it arrives; ``None`` stops. As in :meth:`ByteReader.watch`."""

    def unseen(self) -> object:
        """Return a true value if something waits in the kernel."""


class Channel(abc.ABC):
    """The way in which calls reach a function and answers come back."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def answers(self) -> Answers:
        """Return where answers come from."""

    async def ready(self, container: Container) -> None:  # noqa: B027  # a pipe holds calls until they are read
        """Wait until the container takes calls, or is known not to.

        Raises:
            DriverError: It ended, or did not take calls within its limit.
        """

    def rest(self) -> None:  # noqa: B027  # a pipe outlasts a pause
        """Close what would not outlast a pause of the container."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stdio(Channel):
    """A channel over the container's stdin and stdout."""

    stdin: ByteWriter
    stdout: ByteReader

    @property
    def answers(self) -> Answers:
        """Return stdout."""
        return self.stdout


class Container(abc.ABC):
    """One container, prepared by :meth:`Driver.prepare`: not yet started. The caller of ``prepare`` must remove it.

    Attributes:
        channel: Where calls and answers pass, of the kind that the spec asks for; known once the container has started.
        stderr: What is not an answer: logs.
        exited: How it ended, or ``None`` while it lives (or is not yet known to have ended).
    """

    id: str
    channel: Any
    stderr: ByteReader
    exited: Exit | None = None

    @abc.abstractmethod
    async def start(self) -> None:
        """Attach the streams, then start: not a byte of early output is lost.

        A driver whose backend executes the program later reports a failure in ``Exit.start_fault``.

        Raises:
            StartFailed: It did not start.
            OutOfTime: The phase took longer than its limit.
        """

    @abc.abstractmethod
    async def wait(self) -> Exit:
        """Wait until the container has ended and its output has been delivered to the streams. Many may wait.

        Output that nobody reads does not delay this forever: unread bytes stay in the streams' buffers.
        """

    async def ended_at(self) -> dt.datetime | None:
        """Return when it ended, by the clock of this machine; ``None`` where that is not certain.

        Where an engine reports an end late, this says whether input was handed over after it.
        """
        return None

    @abc.abstractmethod
    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back once, on the event loop, when it ends; at once (in the next tick) if it has ended."""

    @abc.abstractmethod
    def stats(self) -> AsyncIterator[StatsSample]:
        """Yield about one sample a second until the container ends; none if the driver has none."""

    async def freeze(self) -> None:  # noqa: B027  # where the driver cannot, nobody asks it to
        """Stop all its processes until :meth:`thaw`. It can be killed and removed as before.

        Only where the driver's ``capabilities`` say ``freeze``.

        Raises:
            DriverError: It could not be frozen.
        """

    async def thaw(self) -> None:  # noqa: B027  # as above
        """Let its processes run again. Nothing happens to a container that is not frozen.

        Raises:
            DriverError: It could not be thawed.
        """

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

    @property
    def function_subnets(self) -> Sequence[IPNetwork]:
        """Return the networks whose addresses belong to functions; they may change while the driver is open."""
        return ()

    @property
    def warnings(self) -> Sequence[str]:
        """Return missing isolation of functions, as sentences for the operator; empty if nothing is missing."""
        return ()

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

    async def cleaned(self) -> bool:
        """Wait until the containers of earlier runs of this node are gone. Return False if some may be left."""
        return True

    async def resolve(self, image: str) -> str:
        """Return the digest that a reference means on this machine now; empty if that is unknown."""
        return ""

    async def digest_of(self, container: Container) -> str:
        """Return the digest of a container's image, as references name it; empty if that is unknown."""
        return ""

    async def is_stale(self, container: Container) -> bool:
        """Return whether its image was built again since it was made; false if that is unknown."""
        return False

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections and background work. Every container has been removed before."""

    @abc.abstractmethod
    async def prepare(self, spec: ContainerSpec) -> Container:
        """Get the image (at most one fetch at a time, all callers share the result) and make a container.

        On error or cancellation nothing is left behind.

        Raises:
            ImageNotFound: There is no such image.
            ImageRefused: The registry refused it.
            ImageError: It is not available for another reason.
            ImageHasVolumes: It declares volumes, and this node takes none.
            StartFailed: The container could not be made.
            DriverUnavailable: The backend is gone.
            OutOfTime: Pull or create took longer than its limit.
        """
