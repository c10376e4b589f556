"""Workers that share the memory and CPU of a node: containers never hold more, whoever dies when."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.steps import SteppedLoop

from hearth.agent.lending import Loan
from hearth.agent.resources import Reservation, ResourceTracker, pools
from hearth.agent.shares import Share
from hearth.models.function import NOTHING, Amount
from hearth.nodes.workers.broker import Broker, Lend, Outgoing
from hearth.nodes.workers.messages import Aims, aims_of

TOTAL = Amount(1600, 800)
WORKERS = 3
#: More than any order of messages takes.
ROUNDS = 100
AMOUNTS = st.sampled_from([Amount(64, 0), Amount(100, 50), Amount(700, 100), Amount(1600, 0), Amount(1600, 800)])


@dataclasses.dataclass(eq=False)
class Worker:
    """A worker with its real tracker; messages are on their way until they are delivered, in order."""

    number: int
    machine: BrokerMachine
    up: deque[tuple[Any, ...]] = dataclasses.field(default_factory=deque)
    down: deque[Any] = dataclasses.field(default_factory=deque)
    share: Share = dataclasses.field(default_factory=lambda: Share("shop"))
    waiting: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)
    held: list[tuple[Amount, bool, Reservation]] = dataclasses.field(default_factory=list)
    aims: Aims = dataclasses.field(default_factory=lambda: Aims([]))

    def __post_init__(self) -> None:
        self.tracker = ResourceTracker(TOTAL, lender=self)  # type: ignore[arg-type]  # it connects by itself here
        self.up.append(("join",))

    def look(self) -> None:
        """As the lender of a worker: what is needed is stated after each step."""

    def give_back(self, loan: Loan, *, is_sync: bool) -> None:
        """As the lender of a worker."""
        self.up.append(("give", loan, is_sync))

    def state_aim(self) -> None:
        """Tell the broker what is needed now."""
        if (aims := aims_of(self.tracker)) != self.aims:
            self.up.append(("aims", aims.aims))
            self.aims = aims

    async def hold(self, amount: Amount, is_sync: bool) -> None:
        """Wait for room for a container, and start it."""
        reservation = await self.tracker.reserve(amount, self.share, is_sync=is_sync)
        self.held.append((amount, is_sync, reservation))


class BrokerMachine(RuleBasedStateMachine):
    """Anything may happen between two messages."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.broker = Broker(TOTAL)
        self.workers = [Worker(number, self) for number in range(WORKERS)]
        #: Containers of workers that died, by the number of their worker.
        self.left: dict[int, list[tuple[Amount, bool]]] = {number: [] for number in range(WORKERS)}

    @rule(number=st.integers(0, WORKERS - 1), amount=AMOUNTS, is_sync=st.booleans())
    def start(self, number: int, amount: Amount, is_sync: bool) -> None:
        worker = self.workers[number]
        if worker.tracker.is_possible(amount, is_sync=is_sync):
            worker.waiting.append(self.loop.start(worker.hold(amount, is_sync)))
            self.loop.settle()
            worker.state_aim()

    @rule(number=st.integers(0, WORKERS - 1), which=st.integers(0, 9))
    def end(self, number: int, which: int) -> None:
        worker = self.workers[number]
        if worker.held:
            worker.held.pop(which % len(worker.held))[2].release()
            self.loop.settle()
            worker.state_aim()

    @rule(number=st.integers(0, WORKERS - 1), which=st.integers(0, 9))
    def give_up(self, number: int, which: int) -> None:
        worker = self.workers[number]
        waiting = [task for task in worker.waiting if not task.done()]
        if waiting:
            waiting[which % len(waiting)].cancel()
            self.loop.settle()
            worker.state_aim()

    @rule(number=st.integers(0, WORKERS - 1))
    def deliver_up(self, number: int) -> None:
        worker = self.workers[number]
        if worker.up:
            kind, *rest = worker.up.popleft()
            self.told(self.to_broker(number, kind, rest))

    @rule(number=st.integers(0, WORKERS - 1))
    def deliver_down(self, number: int) -> None:
        worker = self.workers[number]
        if worker.down:
            message = worker.down.popleft()
            if isinstance(message, Lend):
                worker.tracker.lend(message.loan)
            else:
                worker.tracker.recall(message.amount, is_sync=message.is_sync)
            self.loop.settle()
            worker.state_aim()

    @rule(rounds=st.integers(1, 4))
    def deliver_all(self, rounds: int) -> None:
        """Most messages come soon."""
        for _ in range(rounds):
            for number, worker in enumerate(self.workers):
                while worker.up:
                    self.deliver_up(number)
            for number, worker in enumerate(self.workers):
                while worker.down:
                    self.deliver_down(number)

    @rule(number=st.integers(0, WORKERS - 1), arrive=st.integers(0, 3))
    def die(self, number: int, arrive: int) -> None:
        """Some of its last messages still arrive; its containers go on."""
        worker = self.workers[number]
        for _ in range(arrive):
            self.deliver_up(number)
        self.told(self.broker.lost(number))
        self.left[number] += [(amount, is_sync) for amount, is_sync, _ in worker.held]
        self.stop_waiting(worker)
        self.workers[number] = Worker(number, self)

    @precondition(lambda self: any(self.left.values()))
    @rule(number=st.integers(0, WORKERS - 1))
    def clean(self, number: int) -> None:
        """Its successor has removed the containers."""
        if number in self.broker.leases:
            self.left[number] = []
            self.workers[number].up.append(("cleaned",))

    @rule(number=st.integers(0, WORKERS - 1))
    def leave(self, number: int) -> None:
        """It is replaced in order."""
        worker = self.workers[number]
        if ("join",) not in worker.up and not worker.held:
            self.stop_waiting(worker)
            while worker.up:
                self.deliver_up(number)
            self.told(self.broker.leave(number))
            self.told(self.broker.lost(number))
            self.workers[number] = Worker(number, self)

    @invariant()
    def containers_fit(self) -> None:
        held = [(amount, is_sync) for worker in self.workers for amount, is_sync, _ in worker.held]
        held += [one for left in self.left.values() for one in left]
        assert sum((amount for amount, _ in held), NOTHING).fits(TOTAL), "more than the node has"
        shared = pools(TOTAL)[1]
        assert sum((amount for amount, is_sync in held if not is_sync), NOTHING).fits(shared), "async in the reserve"

    @invariant()
    def nothing_is_lost(self) -> None:
        leases = [*self.broker.leases.values(), *self.broker.orphaned.values()]
        assert sum(leases, self.broker.free) == Loan(*pools(TOTAL))
        assert NOTHING.fits(self.broker.free.reserve)
        assert NOTHING.fits(self.broker.free.shared)

    def teardown(self) -> None:
        """Once containers end and messages arrive, every request is granted."""
        try:
            for _ in range(ROUNDS):
                for number, worker in enumerate(self.workers):
                    while worker.held:
                        self.end(number, 0)
                    while worker.up:
                        self.deliver_up(number)
                    if number in self.broker.orphaned:
                        self.clean(number)
                for number, worker in enumerate(self.workers):
                    while worker.down:
                        self.deliver_down(number)
            assert not [task for worker in self.workers for task in worker.waiting if not task.done()], "it starved"
        finally:
            for worker in self.workers:
                self.stop_waiting(worker)
            self.loop.close()

    def to_broker(self, number: int, kind: str, rest: list[Any]) -> list[Outgoing]:
        match kind:
            case "join":
                return self.broker.join(number)
            case "cleaned":
                return self.broker.cleaned(number)
            case "give":
                return self.broker.give_back(number, rest[0], is_sync=rest[1])
        return self.broker.aim(number, *rest)

    def told(self, messages: list[Outgoing]) -> None:
        for number, message in messages:
            self.workers[number].down.append(message)

    def stop_waiting(self, worker: Worker) -> None:
        for task in worker.waiting:
            task.cancel()
        self.loop.settle()


BrokerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestBroker = BrokerMachine.TestCase
