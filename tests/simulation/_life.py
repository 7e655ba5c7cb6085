"""One life, from connect to its end, and a little longer: until all of it is gone."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

import hypersockets as hs
from tests._checkpoints import library_tasks

from . import _invariants as check
from ._faults import inject
from ._ledger import Violated
from ._plan import Plan
from ._user import User
from ._world import World

__all__ = ["Life"]


class Life(User):
    """Plays a plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.ending = plan.ending
        self.world = World(plan, self)

    async def run(self) -> None:
        """Live it."""
        with self.scope:
            async with anyio.create_task_group() as self.tasks:
                self.tasks.start_soon(self._see_to_the_end)
                async with self.world.server:
                    self.tasks.start_soon(self.world.run)
                    await self._live()
                self.tasks.cancel_scope.cancel()

    async def _see_to_the_end(self) -> None:
        await anyio.sleep(self.plan.seconds + 400)
        self.judge(_ends, self)

    async def _live(self) -> None:
        outcome: BaseException | None = None
        try:
            with anyio.CancelScope() as host:
                async with hs.connect(self.config(), wait_ready=False) as self.client:
                    self.has_begun.set()
                    self.tasks.start_soon(self.listen)
                    async with anyio.create_task_group() as users:
                        users.start_soon(self.read_tape)
                        users.start_soon(self.watch)
                        for which, act in enumerate((self._send_timed, self._ask, self._change)):
                            users.start_soon(self.use, which, act)
                        await self._meet_faults()
                        if not self.ending.startswith("abrupt"):
                            await self._settle()
                        if self.ending in ("exhaust", "hammer"):
                            await self._make_it_give_up()
                        users.cancel_scope.cancel()
                    self.left_at = anyio.current_time()
                    self.tell(f"the end: {self.ending}")
                    if self.ending == "aclose":
                        await self.client.aclose()
                    elif self.ending == "raise":
                        raise ZeroDivisionError
                    elif self.ending.endswith("cancel"):
                        host.cancel()
                        await checkpoint()
        except Exception as error:  # what came out is looked at
            outcome = error
        ended_at = min(self.left_at, anyio.current_time())  # it may have given up before
        self.judge(check.nothing_is_left, self, library_tasks())
        self.judge(check.ending_is_bounded, self, anyio.current_time() - ended_at)
        self.judge(check.one_plain_exception, self, outcome)
        self.judge(check.no_secret_is_told, repr(self.client) + repr(outcome))
        if outcome is not None:
            self.judge(check.no_error_tells_a_secret, outcome)
        await anyio.sleep(0.1)  # the listener comes to the end
        self.judge(check.closed_comes_last, self)

    async def _meet_faults(self) -> None:
        for fault in self.plan.faults:
            await anyio.sleep_until(fault.at)
            inject(self, fault.kind, fault.knob)
        await anyio.sleep_until(self.plan.seconds)

    async def _settle(self) -> None:
        """Make no more trouble, wait until nothing is under way, and look."""
        self.tell("no more faults")
        self.world.heal()
        since = anyio.current_time()
        quiet = 0
        while quiet < 3:
            await anyio.sleep(0.7)
            quiet = quiet + 1 if self._is_calm() else 0
            if anyio.current_time() > since + 150:
                self.judge(_comes_to_rest, self)
                return
        for function in check.QUIET:
            self.judge(function, self)

    def _is_calm(self) -> bool:
        ledger = self.world.ledger
        metrics = self.client.metrics()
        is_told = metrics.dropped == sum(self.dropped.values())  # of what is dropped within a second one event tells
        is_idle = is_told and not metrics.queued and self.slow_until < anyio.current_time()
        return self.ready is not None and is_idle and not any(ledger.waiting(feed) for feed in ledger.piles)

    async def _make_it_give_up(self) -> None:
        self.strategy.most = 5
        self.world.hammers = self.ending == "hammer"
        if self.ending == "exhaust":
            self.world.armed += [("refused", 0.0)] * 50
        for here in self.world.connections:
            here.peer.cut()
        await anyio.sleep(100)  # it gives up, and this is cancelled


def _ends(life: Life) -> None:
    raise Violated(10, f"it does not end: {life.client!r}, tasks: {library_tasks()}")


def _comes_to_rest(life: Life) -> None:
    waiting = {feed: life.world.ledger.waiting(feed)[:5] for feed in life.world.ledger.piles}
    raise Violated(5, f"without any fault it does not come to rest: {life.client!r}, waiting: {waiting}")
