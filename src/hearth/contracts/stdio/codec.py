"""Formats over stdin and stdout, without I/O: bytes in, events out.

An :class:`Encoder` turns the input of one call into bytes for stdin; a :class:`Decoder` turns the bytes of stdout into
events. Neither does I/O or knows time. Each call has one of each.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import msgspec

from hearth.contracts.base import Head
from hearth.models.errors import HearthError


class Body(msgspec.Struct, frozen=True):
    """Some bytes of the answer's body, never empty."""

    data: bytes


class End(msgspec.Struct, frozen=True):
    """The answer is complete.

    Attributes:
        surplus: The function wrote more than one answer: the container takes no further call.
    """

    surplus: bool = False


Event = Head | Body | End


class InvalidOutput(HearthError):
    """The output is not an answer of its format; the text is the ``<detail>`` of the client's error."""


def is_surplus(data: bytes) -> bool:
    """Return whether bytes after the end of an answer are more than whitespace."""
    return bool(data) and not data.isspace()


class Encoder(abc.ABC):
    """Writes the input of one call.

    Attributes:
        lossy: The format could not carry the bytes of the body unchanged. Known once :meth:`end` has returned.
    """

    __slots__ = ()

    lossy: bool = False

    @abc.abstractmethod
    def body(self, data: bytes) -> bytes:
        """Return the bytes to send for the next piece of the client's body; empty if the format buffers it.

        The head of the input comes with the first bytes returned, from here or from :meth:`end`: nothing is sent
        before the first piece of the client's body, or its end, has arrived. An empty piece has no effect.

        Raises:
            InternalError: The body is longer than the call's ``content_length``.
        """

    @abc.abstractmethod
    def end(self) -> bytes:
        """Return the bytes to send when the client's body has ended.

        Raises:
            InternalError: The body is shorter than the call's ``content_length``.
        """

    def rest(self) -> Sequence[bytes]:
        """Return the pieces to send after what :meth:`end` returned, if that was more than 64 KiB."""
        return ()


class Decoder(abc.ABC):
    """Reads the answer to one call. Unusable after :class:`InvalidOutput`."""

    __slots__ = ()

    @abc.abstractmethod
    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete, in order.

        Bytes after :class:`End` other than whitespace set its ``surplus``. Fed after it has returned :class:`End`, it
        returns nothing for whitespace and ``End(surplus=True)`` for anything else.

        Raises:
            InvalidOutput: The output is not an answer.
        """

    @abc.abstractmethod
    def feed_eof(self) -> list[Event]:
        """Return the events that the end of the stream completes.

        Raises:
            InvalidOutput: The answer is not complete. ``started`` tells whether any byte of it had arrived.
        """

    @property
    @abc.abstractmethod
    def started(self) -> bool:
        """True once any byte of this answer other than whitespace has arrived."""
