"""The simulation: several clients and processes, a bad network, deaths and stand-stills; all of it decided by one seed.

    .venv/bin/python -m tests.sim.storm 17          # what happened under seed 17, and what it broke

A seed replays exactly: time is virtual, tokens are counted, and every chance is drawn from the seed.
"""

import asyncio
import hashlib
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared.conversations.service import create_conversation
from shared.errors import AssistantError
from tests.sim.client import Client, Gone, Shown
from tests.sim.flows import COMPANION
from tests.sim.invariants import check_world
from tests.sim.loop import Stuck, VirtualLoop, run_virtual
from tests.sim.store import FAIR, Weather
from tests.sim.world import OWNER, Machine, World

STORM_SECONDS = 900.0
"""Virtual seconds that all clients may need to come to their end."""
REST_SECONDS = 720.0
"""Virtual seconds of fair weather after which everything must be in order."""


@dataclass(slots=True)
class Report:
    """What one seed did."""

    seed: str
    violations: list[str]
    digest: str
    """Of everything that clients were shown and the store holds: equal runs have equal digests."""
    counts: Counter[str] = field(default_factory=Counter[str])


def run_seed(seed: int | str) -> Report:
    """One simulated world, from its first send to its last check."""
    report = Report(str(seed), [], "")

    async def program(loop: VirtualLoop) -> None:
        random.seed(f"jitter {seed}")  # of the code under test, which draws from the common source
        storm = _Storm(loop, str(seed), report)
        await storm.run()

    state = random.getstate()
    try:
        run_virtual(program)
    except Stuck as stuck:
        report.violations.append(f"stuck: {stuck}")
    except Exception as error:  # what no client of a real host may ever see; the seed must be told with it
        report.violations.append(f"{type(error).__name__} reached a client: {error}")
    finally:
        random.setstate(state)
    return report


class _Storm:
    def __init__(self, loop: VirtualLoop, seed: str, report: Report) -> None:
        self.report = report
        self.chance = chance = random.Random(f"storm {seed}")
        weather = Weather(
            latency=(0.001, chance.choice((0.002, 0.01, 0.04))),
            throttled=chance.choice((0, 0, 0.01, 0.04)),
            lost=chance.choice((0, 0, 0.01, 0.04)),
            late=chance.choice((0, 0, 0.01, 0.03)),
            lag=chance.choice((0, 0, 0.05, 0.2)),
            slow=chance.choice((0, 0, 0.01)),
        )
        self.world = world = World(loop, seed=seed, weather=weather, turn={"background_slots": chance.choice((1, 4))})
        report.violations = world.violations
        world.paces = chance.choice(((1.0,), (0.2, 1.0, 3.0), (0.0, 0.1), (1.0, 1.0, 1.0, 60.0)))
        world.queue.doubled = chance.choice((0, 0.2))
        world.queue.lost = chance.choice((0, 0.2))
        self.number = 0
        self.machines: list[Machine] = []
        for _ in range(chance.choice((2, 3))):
            self.start()

    async def run(self) -> None:
        header = await create_conversation(self.world.start("quiet", weather=FAIR).app, OWNER, metadata={}, items=None)
        chaos = asyncio.create_task(self._chaos())
        users = [self._user(number, header.id) for number in range(self.chance.choice((1, 2, 3)))]
        try:
            async with asyncio.timeout(STORM_SECONDS):
                await asyncio.gather(*users)
        except TimeoutError:
            self.world.accuse("the clients wait for ever")
        chaos.cancel()
        await self._rest()
        self.report.digest = self._digest()
        self.world.end()

    def start(self) -> None:
        self.number += 1
        machine = self.world.start(f"host{self.number}", skew=self.chance.choice((0, 0, -0.05, 0.05)))
        machine.serve_background()
        self.machines.append(machine)

    async def _chaos(self) -> None:
        """Processes die and are replaced, or stand still for longer than their leases."""
        gap = self.chance.choice((2.0, 6.0, 1000.0))
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / gap))
            machine = self.chance.choice(self.machines)
            if machine.host.is_frozen:
                continue
            if self.chance.random() < 0.5:
                self.report.counts["deaths"] += 1
                self.machines.remove(machine)
                machine.host.die()
                self.start()
                for client in self.world.clients:
                    client.machines = self.chance.sample(self.machines, len(self.machines))
            else:
                self.report.counts["stand-stills"] += 1
                machine.host.freeze()
                asyncio.get_running_loop().call_later(self.chance.uniform(0.5, 4.0), machine.host.thaw)

    async def _user(self, number: int, conversation: str) -> None:
        """One device of the owner, doing one thing after another."""
        client = Client(self.world, self.chance.sample(self.machines, len(self.machines)))
        client.patience = self.chance.choice((3.0, 6.0))
        await asyncio.sleep(self.chance.uniform(0, 1))
        last: Shown | None = None
        for step in range(self.chance.choice((1, 2, 3))):
            name, act = self.chance.choice(list(_ACTS.items()))
            self.report.counts[name] += 1
            try:
                last = await act(_Step(self, client, f"{number}.{step}", conversation, last)) or last
            except AssistantError as error:
                self.report.counts[f"refused {error.code}"] += 1
            except Gone:
                self.report.counts["answer lost"] += 1

    async def _rest(self) -> None:
        for machine in self.world.machines:
            machine.host.thaw()
            machine.store.weather = FAIR
        self.world.paces = (1.0,)
        self.world.queue.lost = 0.0
        await asyncio.sleep(REST_SECONDS)
        for client in list(self.world.clients):
            client.machines = [self.world.start(f"late{len(self.world.machines)}", weather=FAIR)]
            for shown in client.shown:
                if shown.id is not None and not shown.is_over and shown.id not in self.world.deleted:
                    await client.resume(shown)
        await check_world(self.world, self.world.start("judge", weather=FAIR))
        self.report.counts["turns"] += len(self.world.turn_ids())
        self.report.counts["model calls"] += len(self.world.asked)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for client in self.world.clients:
            for shown in client.shown:
                for _, block in sorted(shown.blocks.items()):
                    digest.update(block)
        for stored in self.world.store.all("state", OWNER):
            digest.update(repr(stored).encode())
        return digest.hexdigest()


@dataclass(slots=True)
class _Step:
    storm: _Storm
    client: Client
    name: str
    conversation: str
    last: Shown | None

    @property
    def chance(self) -> random.Random:
        return self.storm.chance

    @property
    def key(self) -> str:
        return f"key {self.name}"

    def text(self) -> str:
        return self.chance.choice(
            ("say 2", "say 8", "say 20", "think 3", "use once", "use safe", "use once safe", "fail")
        )

    def hang_up(self) -> Callable[[int], bool]:
        odds = self.chance.choice((0, 0.05, 0.3))
        return lambda _: self.chance.random() < odds


async def _stream(step: _Step) -> Shown:
    return await step.client.stream(key=step.key, input=step.text(), tools=COMPANION, hang_up=step.hang_up())


async def _stream_in_conversation(step: _Step) -> Shown:
    return await step.client.stream(
        key=step.key, input=step.text(), tools=COMPANION, conversation=step.conversation, hang_up=step.hang_up()
    )


async def _stream_without_key(step: _Step) -> Shown:
    return await step.client.stream(input=step.text(), tools=COMPANION, conversation=step.conversation)


async def _plain(step: _Step) -> None:
    await step.client.send(key=step.key, input=step.text(), tools=COMPANION, conversation=step.conversation)


async def _background(step: _Step) -> Shown:
    return await step.client.stream(
        key=step.key, input=step.text(), tools=COMPANION, background=True, hang_up=step.hang_up()
    )


async def _continue(step: _Step) -> Shown | None:
    """A branch behind the last turn, whoever made others there."""
    if step.last is None or step.last.id is None or not step.last.is_over:
        return None
    return await step.client.stream(key=step.key, input=step.text(), tools=COMPANION, previous_response_id=step.last.id)


async def _leave(step: _Step) -> Shown:
    return await step.client.stream(
        key=step.key, input=step.text(), tools=COMPANION, hang_up=lambda last: last >= 2, come_back=False
    )


async def _cancel(step: _Step) -> Shown:
    """Begin, look away, cancel through whoever is there."""
    shown = await step.client.stream(
        key=step.key,
        input="say 60",
        conversation=step.conversation,
        background=step.chance.random() < 0.3,
        hang_up=lambda last: last >= step.chance.choice((1, 3, 6)),
        come_back=False,
    )
    if shown.id is not None:
        await asyncio.sleep(step.chance.uniform(0, 1))
        await step.client.cancel(shown.id)
        await step.client.resume(shown)
    return shown


async def _delete(step: _Step) -> None:
    shown = await step.client.stream(key=step.key, input=step.text(), tools=COMPANION, hang_up=step.hang_up())
    if shown.id is not None:
        await step.client.delete(shown.id)


async def _twice(step: _Step) -> Shown:
    """A double tap: two devices, one key."""
    other = Client(step.storm.world, step.chance.sample(step.storm.machines, len(step.storm.machines)))
    other.patience = step.client.patience
    text = step.text()
    a, b = await asyncio.gather(
        step.client.stream(key=step.key, input=text, tools=COMPANION),
        other.stream(key=step.key, input=text, tools=COMPANION),
    )
    if a.id != b.id:
        step.storm.world.accuse(f"one send became {a.id} and {b.id}")
    return a


_ACTS: dict[str, Callable[[_Step], Awaitable[Shown | None]]] = {
    "stream": _stream,
    "stream in the conversation": _stream_in_conversation,
    "stream without a key": _stream_without_key,
    "plain": _plain,
    "background": _background,
    "continue": _continue,
    "leave": _leave,
    "cancel": _cancel,
    "delete": _delete,
    "double tap": _twice,
}


def main(arguments: list[str]) -> int:
    """Run the seeds named (`17`, `0-999`); print what they broke, and what was done in all."""
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    seeds = broken = 0
    for argument in arguments:
        first, _, last = argument.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            report = run_seed(seed)
            counts += report.counts
            digest.update(report.digest.encode())
            seeds += 1
            if report.violations:
                broken += 1
                print(f"seed {seed}:", *report.violations[:6], sep="\n    ")  # noqa: T201
    summary = {"seeds": seeds, "broken": broken, "digest": digest.hexdigest()[:16], **dict(sorted(counts.items()))}
    print(json.dumps(summary))  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
