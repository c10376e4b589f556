"""Lend the memory and CPU of a node to its workers, and call it back for those that wait.

A pure state machine: a message of a worker goes in, messages to workers come out. What is lent to a worker, at least as
much as its containers hold, stays lent until the worker gives it back or its containers are known to be gone::

    join ──> lease ──give_back──> free          a worker that ends in order: leave ──> free
              └──lost (it died)──> orphaned ──cleaned (its successor removed its containers)──> free

So containers never hold more than the node has, at whatever moment a worker dies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from hearth.agent.lending import NO_LOAN, Loan, least, most
from hearth.agent.resources import pools
from hearth.models.function import NOTHING, Amount

#: The node is lent in this many blocks. More blocks mean more messages, fewer mean more that is called back.
BLOCKS: Final = 16


class Aim(msgspec.Struct, frozen=True):
    """The loan that a worker needs for its next request of one kind.

    Attributes:
        amount: The whole loan for a sync request; the shared part of the loan for an async one.
        turn: Changes when a request of this kind is granted.
    """

    is_sync: bool
    amount: Amount
    turn: int


class Lend(msgspec.Struct, frozen=True, tag="lend"):
    """The worker may use more."""

    loan: Loan


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """The worker is to give more back, or less if negative, for a request of this kind of another worker."""

    amount: Amount
    is_sync: bool


#: A message with the number of the worker that it is for.
Outgoing = tuple[int, Lend | Recall]
#: A worker, and a kind of call: true for sync.
_Key = tuple[int, bool]


class Broker:
    """Lends the parts of one node.

    Requests are served in order of arrival; a sync one does not wait for an async one that lacks room.

    Args:
        total: What containers may use together.
    """

    def __init__(self, total: Amount) -> None:
        self.free = Loan(*pools(total))
        self.leases: dict[int, Loan] = {}
        self.orphaned: dict[int, Loan] = {}
        self._block = Amount(max(1, total.memory_mib // BLOCKS), max(1, total.cpu_milli // BLOCKS))
        self._aims: dict[_Key, Aim] = {}
        self._recalled: dict[_Key, Amount] = {}

    def __repr__(self) -> str:
        return f"<Broker free={self.free} leases={self.leases} orphaned={self.orphaned} aims={self._aims}>"

    def join(self, worker: int) -> list[Outgoing]:
        """Begin to lend to a worker. Containers of an earlier process of this number may still exist."""
        assert worker not in self.leases
        self.leases[worker] = NO_LOAN
        return []

    def cleaned(self, worker: int) -> list[Outgoing]:
        """Free what an earlier process of this number had: its containers are gone."""
        self.free += self.orphaned.pop(worker, NO_LOAN)
        return self._serve()

    def aim(self, worker: int, aims: Sequence[Aim]) -> list[Outgoing]:
        """Take note of the loans that a worker needs, instead of those that it needed before.

        Args:
            worker: Its number.
            aims: One for each kind of call for which a request waits.
        """
        stated = {(worker, aim.is_sync): aim for aim in aims}
        for key in ((worker, True), (worker, False)):
            aim, before = stated.get(key), self._aims.get(key)
            if aim is None or before is None or aim.turn != before.turn:
                self._aims.pop(key, None)  # the request was granted: the next one stands at the end
            if aim is not None:
                self._aims[key] = aim
        return self._serve()

    def give_back(self, worker: int, loan: Loan, *, is_sync: bool) -> list[Outgoing]:
        """Take back what was called back for a request of this kind."""
        self.leases[worker] -= loan
        self.free += loan
        recalled = self._recalled.get((worker, is_sync), NOTHING)
        self._recalled[worker, is_sync] = most(NOTHING, recalled - loan.total)  # as the worker counts
        return self._serve()

    def leave(self, worker: int) -> list[Outgoing]:
        """End a lease in order: the worker has removed all its containers."""
        self.free += self.leases[worker]
        self._forget(worker)
        return self._serve()

    def lost(self, worker: int) -> list[Outgoing]:
        """End a lease of a worker that died; its containers may still run. Idempotent, also after :meth:`leave`."""
        if worker not in self.leases:
            return []
        self.orphaned[worker] = self.orphaned.get(worker, NO_LOAN) + self.leases[worker]
        self._forget(worker)
        return self._serve()

    def _forget(self, worker: int) -> None:
        del self.leases[worker]
        for is_sync in (True, False):
            self._aims.pop((worker, is_sync), None)
            self._recalled.pop((worker, is_sync), None)

    def _serve(self) -> list[Outgoing]:
        lent, recalled = list(self._lend()), list(self._call_back())
        # What is no longer called back comes first: a worker would give back what it is lent.
        kept = [one for one in recalled if not NOTHING.fits(one[1].amount)]
        return [*kept, *lent, *(one for one in recalled if one not in kept)]

    def _lend(self) -> Iterator[tuple[int, Lend]]:
        """Lend in order of arrival. What is collected for a sync request is not lent to one that came later."""
        async_waits = False
        for (worker, is_sync), aim in self._aims.items():
            lack = self._lack(worker, aim)
            if lack == NOTHING or (async_waits and not is_sync):
                continue
            free = self.free.total if is_sync else self.free.shared
            if not lack.fits(free):
                if is_sync:
                    return
                async_waits = True
                continue
            wanted = least(_rounded_up(lack, self._block), free)
            reserve = least(wanted, self.free.reserve) if is_sync else NOTHING
            loan = Loan(reserve, wanted - reserve)
            self.free -= loan
            self.leases[worker] += loan
            yield worker, Lend(loan)

    def _call_back(self) -> Iterator[tuple[int, Recall]]:
        """Call back what the first waiting request lacks, a sync one if there is any, from all who could have it.

        It is not known which of them has it unused. As soon as there is enough, the others keep theirs. A worker that
        was just lent something keeps it until it has granted its request.
        """
        lacks = [(key, lack) for key, aim in self._aims.items() if (lack := self._lack(key[0], aim)) != NOTHING]
        (worker, for_sync), lack = min(lacks, key=lambda one: not one[0][1], default=((-1, True), NOTHING))
        lack = most(NOTHING, lack - (self.free.total if for_sync else self.free.shared))
        served = {key[0] for key, aim in self._aims.items() if self._lack(key[0], aim) == NOTHING}
        for other, lease in self.leases.items():
            for is_sync in (True, False):
                asked = is_sync is for_sync and other != worker and other not in served
                wanted = least(lack, lease.total if is_sync else lease.shared) if asked else NOTHING
                before = self._recalled.get((other, is_sync), NOTHING)
                for part in _signed(wanted - before):
                    yield other, Recall(part, is_sync)
                self._recalled[other, is_sync] = wanted

    def _lack(self, worker: int, aim: Aim) -> Amount:
        lease = self.leases[worker]
        return most(NOTHING, aim.amount - (lease.total if aim.is_sync else lease.shared))


def _signed(amount: Amount) -> list[Amount]:
    """Return the negative part of an amount and the positive one, without those that are nothing."""
    negative = least(amount, NOTHING)
    return [part for part in (negative, amount - negative) if part != NOTHING]


def _rounded_up(amount: Amount, block: Amount) -> Amount:
    """Return the next multiple of a block."""
    return Amount(
        -(-amount.memory_mib // block.memory_mib) * block.memory_mib,
        -(-amount.cpu_milli // block.cpu_milli) * block.cpu_milli,
    )
