"""Real processes under fire: what is killed, stopped, cut off or answered nonsense, and what comes of the turns.

.venv/bin/python -m tests.soak.chaos --turns 1000
"""

import argparse
import asyncio
import dataclasses
import json
import math
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.settings import Limits
from tests.sim.invariants import comparable, retell
from tests.soak.fleet import Fleet, Member, running
from tests.soak.upstream import KEY, MODEL, TroubledModel, serving
from tests.soak.users import Figures, Json, Recovery, Turn, User, event_of

LEASE = 1.5
SILENCE = 1.5
"""Seconds without a word after which the hosts take the model's answer for cut."""
BALANCER_SECONDS = 1.0
"""After which a load balancer sees that a process stands still; until then it sends requests there."""
MOST_FAILED = 0.1
"""Share of the turns that may end `failed`: a turn whose every try met a troubled call does."""
RECOVERY_SECONDS = 2.0
"""Within which 99 in 100 broken streams go on."""
_WORD = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    turns: int = 1000
    users: int = 12
    hosts: int = 4
    per_conversation: int = 5
    words: int = 24
    pace: float = 0.04
    trouble: float = 0.3
    """Share of the model's calls that go wrong."""
    hang_ups: float = 0.04
    """Chance that a client hangs up after a delivery."""
    foreground_every: int = 5
    """Which of the turns runs in the foreground; the others in the background."""
    gap: float = 2.0
    """Seconds between two blows to the fleet, on average."""
    seed: str = "chaos"
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """More environment variables of the hosts."""


@dataclass(slots=True)
class Result:
    figures: Figures
    blows: Counter[str]
    model: TroubledModel
    statuses: Counter[str]
    notes: Counter[str]
    """What turns say of themselves, by its first words."""
    seconds: float
    stall: float = 0.0
    """Longest time that this machine kept a process from running: what was measured beside that says little."""

    @property
    def is_quick(self) -> bool:
        """Whether broken streams go on as soon as is promised."""
        p99 = quantile(self.recoveries(), 0.99)
        return p99 is None or p99 < RECOVERY_SECONDS

    def recoveries(self) -> list[float]:
        """Seconds of each, less those in which the model hung on a host that was alive."""
        return sorted(
            each.ended - each.began - sum(_overlap(each, silence) for silence in self.model.silences[each.asked])
            for each in self.figures.recoveries
        )

    def summary(self) -> dict[str, Any]:
        figures = self.figures
        recoveries = self.recoveries()
        observed = sorted(each.ended - each.began for each in figures.recoveries)
        return {
            "turns": figures.turns,
            "in the background": figures.in_background,
            "events": figures.events,
            "seconds": round(self.seconds, 1),
            "statuses": dict(sorted(self.statuses.items())),
            "blows": dict(sorted(self.blows.items())),
            "model": dict(sorted(self.model.counts.items())),
            "notes": dict(sorted(self.notes.items())),
            "hang-ups": figures.hang_ups,
            "breaks": figures.breaks,
            "refusals": figures.refusals,
            "recoveries": len(recoveries),
            "recovery p50": quantile(recoveries, 0.50),
            "recovery p99": quantile(recoveries, 0.99),
            "recovery p99 with the model's hangs": quantile(observed, 0.99),
            "longest stall of the machine": round(self.stall, 3),
            "violations": len(figures.violations),
        }


def _overlap(recovery: Recovery, silence: tuple[float, float]) -> float:
    return max(0.0, min(recovery.ended, silence[1]) - max(recovery.began, silence[0]))


def quantile(values: list[float], share: float) -> float | None:
    """By nearest rank."""
    return round(values[max(0, math.ceil(share * len(values)) - 1)], 3) if values else None


async def run(plan: Plan, data: Path) -> Result:
    """All turns of a plan, then every check; the folder must be empty."""
    chance = random.Random(plan.seed)
    model = TroubledModel(trouble=plan.trouble, words=plan.words, pace=plan.pace, seed=f"{plan.seed} model")
    figures, blows = Figures(), Counter[str]()
    async with serving(model) as upstream, running(plan.hosts, data, settings_of(plan, upstream)) as fleet:
        users = [
            User(fleet.url, f"key{n}", figures, random.Random(f"{plan.seed} user {n}"), hang_ups=plan.hang_ups)
            for n in range(plan.users)
        ]
        began = time.monotonic()
        stalls = [0.0]
        try:
            storm = asyncio.create_task(_storm(fleet, plan, chance, blows))
            watch = asyncio.create_task(_watch(stalls))
            numbers = iter(range(plan.turns))
            kept: list[tuple[User, str, list[Turn]]] = []
            await asyncio.gather(*(_live(user, numbers, plan, kept) for user in users))
            storm.cancel()
            watch.cancel()
            await asyncio.gather(storm, watch, return_exceptions=True)
            seconds = time.monotonic() - began
            await _calm(fleet)
            result = Result(figures, blows, model, Counter(), Counter(), seconds, stalls[0])
            for user, conversation, turns in kept:
                await _check(user, conversation, turns, plan, result)
            failed = result.statuses["failed"]
            if failed > max(10, MOST_FAILED * plan.turns):
                figures.violations.append(f"{failed} turns failed: more than the model's trouble explains")
        finally:
            for user in users:
                await user.close()
    return result


def settings_of(plan: Plan, upstream: str) -> dict[str, str]:
    """Of the hosts."""
    unlimited = {field.name: None for field in dataclasses.fields(Limits)}
    patience = {"first_token": SILENCE, "silence": SILENCE}
    deployment = {"endpoint": upstream, "model": MODEL, "key": "OPENAI_API_KEY", **patience}
    routes = {"deployments": {MODEL: deployment}, "models": {"companion": {"chain": [MODEL]}}}
    return {
        "COMPANION_ROUTES": json.dumps(routes),
        "OPENAI_API_KEY": KEY,
        "COMPANION_API_KEYS": ",".join(f"key{n}=owner{n}" for n in range(plan.users)),
        "COMPANION_HEARTBEAT": "1",
        "COMPANION_LEASE": str(LEASE),
        "COMPANION_MODEL_TIMEOUT": "8",
        "COMPANION_TITLES": "off",
        "COMPANION_PLANS": json.dumps({"default": unlimited}),
        **plan.settings,
    }


async def _live(user: User, numbers: Iterator[int], plan: Plan, kept: list[tuple[User, str, list[Turn]]]) -> None:
    """Conversation after conversation, as long as there are turns to take."""
    for number in numbers:
        if not user.conversation or len(user.turns) >= plan.per_conversation:
            user.turns = []
            await user.begin(str(number))
            kept.append((user, user.conversation, user.turns))
        await user.take_turn(str(number), background=number % plan.foreground_every > 0)


async def _watch(stalls: list[float]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        stalls[0] = max(stalls[0], time.monotonic() - began - 0.02)


async def _storm(fleet: Fleet, plan: Plan, chance: random.Random, blows: Counter[str]) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(chance.expovariate(1 / plan.gap))
            blow = chance.choice(("kill", "stop", "terminate", "cut", "cut", "cut"))
            if blow == "cut":
                blows[blow] += fleet.cut(chance)
                continue
            well = [member for member in fleet.members if member.is_ready and not member.is_struck]
            if len(well) < 3:
                continue
            blows[blow] += 1
            group.create_task(_strike(blow, chance.choice(well), chance.uniform(1.1, 2.5) * LEASE))


async def _strike(blow: str, member: Member, seconds: float) -> None:
    member.is_struck = True
    member.is_ready = blow == "stop"  # that one has died is seen at once: nobody listens there
    await (_stop(member, seconds) if blow == "stop" else _restart(member, _SIGNALS[blow]))
    member.is_struck = False


_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}


async def _restart(member: Member, end: signal.Signals) -> None:
    member.send(end)
    await member.ended()
    await member.start()


async def _stop(member: Member, seconds: float) -> None:
    """Longer than its leases, then on as if nothing had been: sometimes while its clients still listen."""
    member.freeze()
    await asyncio.sleep(BALANCER_SECONDS)
    member.is_ready = False
    await asyncio.sleep(seconds - BALANCER_SECONDS)
    member.send(signal.SIGCONT)
    member.is_ready = True


async def _calm(fleet: Fleet) -> None:
    """Every process is there again."""
    for member in fleet.members:
        member.send(signal.SIGCONT)
        if not member.is_ready:
            member.send(signal.SIGKILL)
            await member.ended()
            await member.start()


async def _check(user: User, conversation: str, turns: list[Turn], plan: Plan, result: Result) -> None:
    """Each turn is final and replays as it was shown; the conversation has each item once, in order."""
    said: list[str] = []
    violations = result.figures.violations
    for turn in turns:
        if turn.id is None:
            violations.append(f"{turn.key}: never accepted")
            continue
        response = await user.call("GET", f"/responses/{turn.id}")
        result.statuses[response["status"]] += 1
        result.notes.update(note.partition(" (")[0].partition(";")[0] for note in response.get("notes", ()))
        violations += [f"{turn.id}: {wrong}" for wrong in _wrongs(turn, await user.replay(turn), response, plan)]
        if response["status"] != "failed":
            said += [turn.text, *(item["id"] for item in response["output"])]
    found = await _items(user, conversation)
    if found != said:
        violations.append(f"{conversation}: has {found}, should have {said}")


def _wrongs(turn: Turn, replay: dict[int, bytes], response: Json, plan: Plan) -> Iterator[str]:
    """What is wrong with a turn whose client saw its end, by its replay and by its record."""
    if response["status"] not in ("completed", "incomplete", "failed", "cancelled"):
        yield f"still {response['status']}"
    if response["status"] != turn.status:
        yield f"is {response['status']}, was shown as {turn.status}"
    differing = [number for number, block in turn.blocks.items() if replay.get(number) != block]
    if differing or set(replay) != set(turn.blocks):
        yield f"shown were {len(turn.blocks)} events, replayed {len(replay)}; {differing[:5]} differ"
    events = [event_of(block) for _, block in sorted(turn.blocks.items())]
    try:
        told = retell(events)
    except AssertionError as failure:
        yield str(failure)
    else:
        if told != [comparable(item) for item in response["output"]]:
            yield f"shown was {told}, stored is {response['output']}"
    if events and events[-1].get("response", {}).get("output") != response["output"]:
        yield "the terminal event shows other items than the record"
    answers = [item for item in response["output"] if item["type"] == "message"]
    for place, item in enumerate(answers):
        is_last = place == len(answers) - 1
        yield from _wrongs_of(item, plan.words if is_last and response["status"] == "completed" else None)
    if response["status"] == "completed" and not answers:
        yield "completed, but without an answer"


def _wrongs_of(item: Json, words: int | None) -> Iterator[str]:
    """One answer comes from one call of the model, without a gap; `words` is how many a whole one has."""
    text = "".join(part["text"] for part in item["content"])
    found = [(int(word[1]), int(word[2])) for word in map(_WORD.fullmatch, text.split()) if word]
    if len(found) < len(text.split()) or (found and found != [(found[0][0], place) for place in range(len(found))]):
        yield f"two answers in one: {text!r}"
    if words is not None and (len(found) != words or item["status"] != "completed"):
        yield f"completed, but its answer is {item['status']} with {len(found)} words of {words}"
    if words is None and item["status"] == "completed" and found:
        yield f"an answer that was not the last is completed: {text!r}"


async def _items(user: User, conversation: str) -> list[str]:
    """What the conversation shows: the users' words, and the ids of answers."""
    page = await user.call("GET", f"/conversations/{conversation}/items?order=asc&limit=100")
    return [item["content"][0]["text"] if item.get("role") == "user" else item["id"] for item in page["data"]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.chaos", description="Real processes under fire.")
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between two blows, on average")
    parser.add_argument("--seed", default="chaos")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="companion-chaos-") as folder:
        result = asyncio.run(run(Plan(turns=given.turns, gap=given.gap, seed=given.seed), Path(folder)))
    print(json.dumps(result.summary()))  # noqa: T201
    print(*result.figures.violations[:20], sep="\n")  # noqa: T201
    return 1 if result.figures.violations or not result.is_quick else 0


if __name__ == "__main__":
    sys.exit(main())
