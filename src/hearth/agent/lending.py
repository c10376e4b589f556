"""Memory and CPU that several workers of one node lend each other, as one of them sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from hearth.models.function import NOTHING, Amount


class Part(NamedTuple):
    """The part of a worker in what its node does as a whole.

    Attributes:
        number: Of the worker, from 0.
        workers: Of the node.
    """

    number: int = 0
    workers: int = 1

    def of(self, count: int) -> int:
        """Return how many of some containers of the node are this worker's."""
        return count // self.workers + (self.number < count % self.workers)


WHOLE: Final = Part()


class Loan(msgspec.Struct, frozen=True):
    """A part of the node that was lent to a worker.

    Attributes:
        reserve: Of what only sync calls may use.
        shared: Of the rest, which both kinds of call may use.
    """

    reserve: Amount = NOTHING
    shared: Amount = NOTHING

    @property
    def total(self) -> Amount:
        """Return both together."""
        return self.reserve + self.shared

    def __add__(self, other: Loan) -> Loan:
        return Loan(self.reserve + other.reserve, self.shared + other.shared)

    def __sub__(self, other: Loan) -> Loan:
        return Loan(self.reserve - other.reserve, self.shared - other.shared)


NO_LOAN: Final = Loan()


class Borrower(Protocol):
    """Holds a loan: the resource tracker of a worker."""

    @property
    def lent(self) -> Loan:
        """Return what is lent to it now."""

    @property
    def used(self) -> Amount:
        """Return what containers hold of it."""

    def lacking(self, *, is_sync: bool) -> Amount:
        """Return what the next request of this kind lacks; nothing if none waits."""

    def turn(self, *, is_sync: bool) -> int:
        """Return how many requests of this kind were granted."""

    def lend(self, loan: Loan) -> None:
        """Lend it more."""

    def recall(self, amount: Amount, *, is_sync: bool) -> None:
        """Call an amount back for a request of this kind elsewhere; a negative one takes that back."""


class Lender(Protocol):
    """Lends parts of the node to one worker."""

    async def connect(self, borrower: Borrower, cleaned: Callable[[], Awaitable[bool]]) -> None:
        """Begin to lend.

        Args:
            borrower: Has what is lent.
            cleaned: Waits until the containers of earlier runs are gone; false if some may be left.
        """

    def look(self) -> None:
        """Take note that what the borrower lacks may have changed."""

    def give_back(self, loan: Loan, *, is_sync: bool) -> None:
        """Take back what was called back for a request of this kind and is free."""


def least(one: Amount, other: Amount) -> Amount:
    """Return the smaller memory and the smaller CPU."""
    return Amount(min(one.memory_mib, other.memory_mib), min(one.cpu_milli, other.cpu_milli))


def most(one: Amount, other: Amount) -> Amount:
    """Return the larger memory and the larger CPU."""
    return Amount(max(one.memory_mib, other.memory_mib), max(one.cpu_milli, other.cpu_milli))
