"""How much work this host takes on: more than it can do is refused at once, and nobody takes it all.

    ticket = await gate.enter(owner)     # at once, or after a short wait in a fair line; or ModelUnavailable at once
    try: ...
    finally: ticket.leave()

Two things may be short, and each has its measure. Places: so many turns run at a time, and fewer while deployments are
too busy or the event loop stays late. The processor: for each turn it lets in, a pass of the event loop must go by,
and some more while passes are long. A loop that has time makes many short passes and lets everybody in; one that has
none takes on just what it finishes, so its passes stay short whatever comes, and who came first is served first instead
of everybody late. Some are let in together and then as many passes waited for: they go from stage to stage together
(stages.py), and what they write, they write in one transaction.

In the line the owner who holds fewest is next, and one that holds more than its part of the places leaves the last of
them to others. Who holds little beside others who hold much waits for no pass, at no stage either: it is not who takes
the time.
"""

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from shared.errors import ModelUnavailable
from shared.stages import Beginning, goes_along
from shared.telemetry import names
from shared.telemetry.signals import signals

MOST = 512
LEAST = 16
PATIENCE = 1.0
"""Seconds of expected waiting above which a newcomer is refused."""
BURST = 1.0
"""Seconds a line may be as long as there are places: so many at once are no overload yet."""
GROUP = 14
"""Turns let in together."""
FEW = 3
"""The same, while somebody who holds little is beside others who hold much: passes are shorter then, and its turns come
through them sooner."""
QUIET_SECONDS = 1.0
"""How long after such a one has come that is so."""
SHORT = 0.0008
"""Seconds of a pass in which nobody waits long for the processor: after a longer one, one more is waited for."""
MOST_PASSES = 6
"""Waited for at most, for each turn let in: however long they are, the line moves."""
SAMPLE = 0.05
"""How much one group, or one turn, counts in the average of how long they take."""
RESERVE_SHARE = 8
"""One place in so many is kept for owners who hold few."""
MUCH = 4
"""Turns that an owner holds, on average, from which one who holds less than half of that waits for no pass. Where each
owner holds a few it is their number that fills the host.
"""
BEAT = 0.05
"""Seconds between two looks at how late the event loop is."""
LATE = 0.25
"""Seconds of lateness, as a moving average, from which the host takes on less: one long import is no overload."""
MEMORY = 0.2
"""How much the last look counts in that average."""
SHRINK = 0.85
GROW = 1.1
"""In half a second."""


class Ticket:
    """A place; leaving twice is leaving once."""

    __slots__ = ("_began", "_gate", "_is_left", "_owner", "_timer", "has_begun", "is_held")

    def __init__(self, gate: "Gate", owner: str, began: float) -> None:
        self._gate = gate
        self._owner = owner
        self._began = began
        self._is_left = False
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False
        Beginning.count += 1
        self.is_held = False
        """Somebody else gives it back: the turn that holds it."""

    def reserve(self, seconds: float) -> None:
        """Leave after so long, unless it is claimed before."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.leave)

    def claim(self) -> bool:
        """It is left by hand from here on; False: it was left already."""
        self._stop()
        return not self._is_left

    def begun(self) -> None:
        """Its turn was accepted, or given up: those that began with it wait for it no longer."""
        if not self.has_begun:
            self.has_begun = True
            Beginning.count -= 1

    def hold(self) -> "Ticket":
        self.begun()
        self.is_held = True
        return self

    def leave(self) -> None:
        self._stop()
        self.begun()
        if not self._is_left:
            self._is_left = True
            self._gate._leave(self._owner, self._began)  # pyright: ignore[reportPrivateUsage]

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Gate:
    """One per host. Not a queue for its own sake: the line is as short as patience."""

    def __init__(
        self,
        *,
        most: int = MOST,
        patience: float = PATIENCE,
        is_adaptive: bool = True,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`is_adaptive`: the limit follows how late the event loop is."""
        self._most = max(1, most)
        self._is_adaptive = is_adaptive
        self._patience = patience
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self.limit = float(self._most)
        """Places, as things stand."""
        self.in_flight = 0
        self.refused = 0
        self._checks = 0
        self._held: Counter[str] = Counter()
        self._lines: OrderedDict[str, deque[asyncio.Future[Ticket]]] = OrderedDict()
        self._waiting = 0
        self._seconds = 1.0
        """How long a place is held, a moving average."""
        self._group = 0
        """Let in together just now."""
        self._passes = 0
        """How many have gone by since."""
        self._group_began = 0.0
        self._pass_began = 0.0
        self._seconds_apart = 0.0
        """Between two turns let in while there is a line, a moving average."""
        self._quiet_came = -math.inf
        """When somebody who holds little beside others who hold much was let in."""
        self._formed = 0.0
        """When the line was empty last."""
        self._changed = 0.0
        self._late = 0.0
        self._pulse: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return self._waiting

    async def enter(self, owner: str, *, checked: int | None = None) -> Ticket:
        """A place for one turn; `checked`, what `check` gave: there was room a moment ago, so there is now.

        Raises:
            ModelUnavailable: the host has more to do than it can; at once, saying when to come back.
        """
        is_quiet = self._is_quiet(owner)
        goes_along.set(not is_quiet)
        if self._is_open(owner):
            if is_quiet:
                self._quiet_came = self._now()
                return self._admit(owner)
            ticket = self._admit(owner)
            return ticket if checked is None or checked == self._checks else await self._with_others(ticket)
        if checked is None:
            self._refuse_excess(owner)
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._formed = self._now()
        self._lines.setdefault(owner, deque()).append(place)
        self._waiting += 1
        self._let_in()  # others may wait for places that this owner, who holds few, may have
        try:
            return await place
        except asyncio.CancelledError:
            self._forget(owner, place)
            raise

    def check(self, owner: str) -> int:
        """Before anything is done for a request that would ask for a place: refuse it where `enter` would.

        Returns:
            How many were not refused, this one included: so `enter` knows whether others come right behind it.

        Raises:
            ModelUnavailable: as `enter` says.
        """
        if not self._is_open(owner):
            self._refuse_excess(owner)
        self._checks += 1
        return self._checks

    def take(self, owner: str) -> Ticket:
        """A place without asking: for work that was accepted before (a background turn, a take-over)."""
        ticket = self._admit(owner)
        ticket.begun()
        return ticket

    def is_too_busy(self) -> None:
        """A deployment refused a call for want of capacity, and no other had any: take on less."""
        self._shrink()

    def _admit(self, owner: str) -> Ticket:
        self.in_flight += 1
        self._held[owner] += 1
        self._group += 1
        if self._group == 1:
            self._group_began = self._pass_began = self._now()
            asyncio.get_running_loop().call_soon(self._next_pass)
        if self._is_adaptive and (self._pulse is None or self._pulse.done()):
            self._pulse = asyncio.create_task(self._beat())
        return Ticket(self, owner, self._now())

    @staticmethod
    async def _with_others(ticket: Ticket) -> Ticket:
        """Those right behind are let in too before this one goes on."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            ticket.leave()
            raise
        return ticket

    def _next_pass(self) -> None:
        now = self._now()
        is_long = now - self._pass_began > SHORT
        self._pass_began = now
        self._passes += 1
        if self._passes < self._group * (MOST_PASSES if is_long else 1):
            asyncio.get_running_loop().call_soon(self._next_pass)
            return
        if self._waiting:
            self._seconds_apart += ((now - self._group_began) / self._group - self._seconds_apart) * SAMPLE
        self._group = self._passes = 0
        self._let_in()

    def _has_time(self) -> bool:
        few = self._now() - self._quiet_came < QUIET_SECONDS
        return not self._passes and self._group < (FEW if few else GROUP)

    def _is_open(self, owner: str) -> bool:
        is_next = self._is_quiet(owner) or (not self._waiting and self._has_time())
        return is_next and self._may_hold(owner)

    def _is_quiet(self, owner: str) -> bool:
        average = self.in_flight / max(1, len(self._held))
        return average >= MUCH and self._held[owner] < average / 2 and owner not in self._lines

    def _may_hold(self, owner: str) -> bool:
        places = int(self.limit)
        if self.in_flight >= places:
            return False
        reserve = max(1, places // RESERVE_SHARE) if places > 1 else 0
        fair = places / max(2, len(self._held))
        return self._held[owner] < max(1.0, fair) or self.in_flight < places - reserve

    def _refuse_excess(self, owner: str) -> None:
        rate = max(1.0, self.limit) / self._seconds
        if self._seconds_apart:
            rate = min(rate, 1 / self._seconds_apart)
        room = max(1.0, rate * self._patience)
        if not self._waiting or self._now() - self._formed < BURST:
            room = max(room, self.limit)
        line, owners = len(self._lines.get(owner, ())), len(self._lines)
        # Who has nobody in the line waits for one of each owner; who has, leaves room for an owner who comes later.
        if owners < room if not line else line < room / (owners + 1) and self._waiting < 2 * room:
            return
        self.refused += 1
        signals.measure(names.REFUSALS, 1)
        seconds = min(30.0, max(1.0, (self._waiting + 1) / rate))
        raise ModelUnavailable("Too much is asked of this server right now; try again.", retry_after=round(seconds, 1))

    def _leave(self, owner: str, began: float) -> None:
        self.in_flight -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._seconds += (max(0.01, self._now() - began) - self._seconds) * SAMPLE
        self._let_in()

    def _let_in(self) -> None:
        """The owner who holds fewest is next; of several, the one whose turn was longest ago."""
        while self._lines and self._has_time():
            owner = min(self._lines, key=self._held.__getitem__)
            if not self._may_hold(owner):
                return
            line = self._lines[owner]
            self._lines.move_to_end(owner)
            place = line.popleft()
            self._waiting -= 1
            if not line:
                del self._lines[owner]
            if not place.done():
                place.set_result(self._admit(owner))

    def _forget(self, owner: str, place: asyncio.Future[Ticket]) -> None:
        """Who waited has left: out of the line, or out of the place just given."""
        line = self._lines.get(owner)
        if line is not None and place in line:
            line.remove(place)
            self._waiting -= 1
            if not line:
                del self._lines[owner]
        elif place.done() and not place.cancelled():
            place.result().leave()

    async def _beat(self) -> None:
        """While there is work: look how late the loop is, and set the limit by it."""
        while self.in_flight or self._waiting:
            expected = self._now() + BEAT
            await asyncio.sleep(BEAT)
            self._late += (max(0.0, self._now() - expected) - self._late) * MEMORY
            if self._late > LATE:
                self._shrink()
            elif self.limit < self._most and self._late < LATE / 2:
                self.limit = min(self._most, self.limit * GROW ** (BEAT / 0.5))
                self._let_in()

    def _shrink(self) -> None:
        now = self._now()
        if now - self._changed < 4 * BEAT:
            return
        self._changed = now
        self.limit = max(float(min(LEAST, self._most)), min(self.limit, float(self.in_flight)) * SHRINK)
