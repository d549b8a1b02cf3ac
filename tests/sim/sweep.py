"""The crash-point sweep: a process dies before or after every call that it makes, and others must make it good."""

import asyncio
import random
from dataclasses import dataclass, field

from tests.sim.client import Client
from tests.sim.flows import Flow, Stage
from tests.sim.hosts import Host
from tests.sim.invariants import check_world
from tests.sim.loop import Stuck, VirtualLoop, run_virtual
from tests.sim.world import World

FLOW_SECONDS = 300.0
"""Virtual seconds that the clients of a flow may need."""
REST_SECONDS = 900.0
"""Virtual seconds between the end of a flow and the moment when everything must be in order."""


type Where = int | tuple[str, int]


@dataclass(slots=True)
class Deaths:
    """Which process dies at which of its points: by number, counted from 1, or at the so-and-so-manieth of a label."""

    at: dict[str, Where]
    seen: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The points that each process has passed."""
    is_over: bool = False
    """The flow has been played; what follows is rest."""

    def point(self, host: Host, label: str) -> None:
        if not label or self.is_over:
            return
        passed = self.seen.setdefault(host.name, [])
        passed.append(label)
        where = self.at.get(host.name)
        if where in (len(passed), (label, passed.count(label))):
            host.die()


@dataclass(frozen=True, slots=True)
class Outcome:
    deaths: Deaths
    violations: list[str]


def run_flow(flow: Flow, **at: Where) -> Outcome:
    """One run of a flow, in which each process named dies at its point (`A=17`)."""
    deaths = Deaths(at)

    async def program(loop: VirtualLoop) -> World:
        world = World(loop, point=deaths.point, turn={"titles": False, **flow.settings})
        stage = Stage(world, [world.start(name) for name in "ABCD"])
        try:
            async with asyncio.timeout(FLOW_SECONDS):
                await flow.play(stage)
        except TimeoutError:
            world.accuse("the clients wait for ever")
        deaths.is_over = True
        await rest(world)
        world.end()
        return world

    try:
        return Outcome(deaths, run_virtual(program).violations)
    except Stuck as stuck:
        return Outcome(deaths, [f"stuck: {stuck}"])


async def rest(world: World) -> None:
    """Let a fresh process recover what is left, then check everything on another one."""
    world.start("recovery").serve_background()
    await asyncio.sleep(REST_SECONDS)
    for client in list(world.clients):
        client.machines.append(world.start("late"))
        for shown in client.shown:
            if shown.id is not None and not shown.is_over and shown.id not in world.deleted:
                await Client.resume(client, shown)
    await check_world(world, world.start("judge"))


def points(flow: Flow) -> list[str]:
    """The points of process A in a run without deaths.

    Raises:
        AssertionError: even that run breaks a promise.
    """
    outcome = run_flow(flow)
    assert not outcome.violations, outcome.violations
    return outcome.deaths.seen["A"]


def pairs(flow: Flow, count: int, seed: str) -> list[tuple[int, int]]:
    """So many random pairs of points: of A, and of B, which goes on."""
    chance = random.Random(seed)
    most = len(points(flow))
    return [(chance.randint(1, most), chance.randint(1, most)) for _ in range(count)]
