"""The messages between a worker and the supervisor: JSON, one on each line of a socket that only these two have."""

from __future__ import annotations

import msgspec

from hearth.agent.lending import Borrower, Loan
from hearth.models.function import NOTHING
from hearth.nodes.workers.broker import Aim, Lend, Recall


class Join(msgspec.Struct, frozen=True, tag="join"):
    """The worker begins to borrow."""


class Cleaned(msgspec.Struct, frozen=True, tag="cleaned"):
    """The containers of earlier processes of this worker are gone."""


class Aims(msgspec.Struct, frozen=True, tag="aims"):
    """The loans that the worker needs, instead of those that it needed before."""

    aims: list[Aim]


class GiveBack(msgspec.Struct, frozen=True, tag="give_back"):
    """The worker gives back what was called back."""

    loan: Loan
    is_sync: bool


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """The worker ends, and has no container any more."""


class StandIn(msgspec.Struct, frozen=True, tag="stand_in"):
    """The worker is to accept the connections of another one, too, or no longer."""

    number: int
    is_needed: bool


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """The node is about to stop: the worker is to report that it is not ready, and to take no accepted call."""


OfWorker = Join | Cleaned | Aims | GiveBack | Leave
OfSupervisor = Lend | Recall | StandIn | Retire

encode = msgspec.json.Encoder().encode_lines
decode_of_worker = msgspec.json.Decoder(OfWorker).decode
decode_of_supervisor = msgspec.json.Decoder(OfSupervisor).decode


def aims_of(borrower: Borrower) -> Aims:
    """Return what a borrower needs now: what it has, and what its next requests lack."""
    lent = borrower.lent
    has = {True: lent.total, False: lent.shared}
    lacks = {is_sync: borrower.lacking(is_sync=is_sync) for is_sync in has}
    return Aims(
        [
            Aim(is_sync, has[is_sync] + lack, borrower.turn(is_sync=is_sync))
            for is_sync, lack in lacks.items()
            if lack != NOTHING
        ]
    )
