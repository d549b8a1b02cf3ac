"""Real processes under fire: what is killed, stopped, cut off or answered nonsense, and what comes of the turns.

.venv/bin/python -m tests.soak.chaos --turns 1000
"""

import argparse
import asyncio
import dataclasses
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.settings import Limits
from tests.soak.fleet import Fleet, Member, running
from tests.soak.upstream import KEY, MODEL, TroubledModel, serving
from tests.soak.users import Figures, Turn, User

LEASE = 1.5
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
    background: float = 0.8
    """Share of the turns that run in the background."""
    gap: float = 2.0
    """Seconds between two blows to the fleet, on average."""
    seed: str = "chaos"
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """More environment variables of the hosts."""


@dataclass(slots=True)
class Result:
    figures: Figures
    blows: Counter[str]
    model: Counter[str]
    statuses: Counter[str]
    attempts: int
    """Turns that another host had to take over, or that were made again after a break."""
    seconds: float

    def summary(self) -> dict[str, Any]:
        recoveries = sorted(self.figures.recoveries)
        return {
            "turns": self.figures.turns,
            "seconds": round(self.seconds, 1),
            "statuses": dict(self.statuses),
            "blows": dict(self.blows),
            "model": dict(self.model),
            "hang-ups": self.figures.hang_ups,
            "breaks": self.figures.breaks,
            "refusals": self.figures.refusals,
            "recoveries": len(recoveries),
            "recovery p50": _quantile(recoveries, 0.50),
            "recovery p99": _quantile(recoveries, 0.99),
            "violations": len(self.figures.violations),
        }


def _quantile(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else None


async def run(plan: Plan, data: Path) -> Result:
    """All turns of a plan, then every check; the folder must be empty."""
    chance = random.Random(plan.seed)
    model = TroubledModel(trouble=plan.trouble, words=plan.words, pace=plan.pace, seed=f"{plan.seed} model")
    figures, blows = Figures(), Counter[str]()
    async with serving(model) as upstream, running(plan.hosts, data, _settings(plan, upstream)) as fleet:
        users = [
            User(fleet.url, f"key{n}", figures, random.Random(f"{plan.seed} user {n}"), hang_ups=plan.hang_ups)
            for n in range(plan.users)
        ]
        began = time.monotonic()
        try:
            storm = asyncio.create_task(_storm(fleet, plan, chance, blows))
            numbers = iter(range(plan.turns))
            kept: list[tuple[User, str, list[Turn]]] = []
            await asyncio.gather(*(_live(user, name, numbers, plan, kept) for name, user in enumerate(users)))
            storm.cancel()
            await asyncio.gather(storm, return_exceptions=True)
            seconds = time.monotonic() - began
            await _calm(fleet)
            statuses: Counter[str] = Counter()
            attempts = 0
            for user, conversation, turns in kept:
                attempts += await _check(user, conversation, turns, figures, statuses)
        finally:
            for user in users:
                await user.close()
    return Result(figures, blows, model.counts, statuses, attempts, seconds)


def _settings(plan: Plan, upstream: str) -> dict[str, str]:
    unlimited = {field.name: None for field in dataclasses.fields(Limits)}
    return {
        "OPENAI_BASE_URL": upstream,
        "OPENAI_API_KEY": KEY,
        "OPENAI_MODEL": MODEL,
        "COMPANION_API_KEYS": ",".join(f"key{n}=owner{n}" for n in range(plan.users)),
        "COMPANION_HEARTBEAT": "1",
        "COMPANION_LEASE": str(LEASE),
        "COMPANION_MODEL_TIMEOUT": "8",
        "COMPANION_TITLES": "off",
        "COMPANION_PLANS": json.dumps({"default": unlimited}),
        **plan.settings,
    }


async def _live(user: User, name: int, numbers: Any, plan: Plan, kept: list[tuple[User, str, list[Turn]]]) -> None:
    """Conversation after conversation, as long as there are turns to take."""
    chance = random.Random(f"{plan.seed} life {name}")
    for number in numbers:
        if not user.conversation or len(user.turns) >= plan.per_conversation:
            user.turns = []
            await user.begin(str(number))
            kept.append((user, user.conversation, user.turns))
        await user.take_turn(str(number), background=chance.random() < plan.background)


async def _storm(fleet: Fleet, plan: Plan, chance: random.Random, blows: Counter[str]) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(chance.expovariate(1 / plan.gap))
            blow = chance.choice(("kill", "stop", "terminate", "cut", "cut", "cut"))
            if blow == "cut":
                blows[blow] += fleet.cut(chance)
                continue
            ready = [member for member in fleet.members if member.is_ready]
            if len(ready) < 3:
                continue
            blows[blow] += 1
            member = chance.choice(ready)
            member.is_ready = blow == "stop"  # a load balancer takes a moment to see that one stands still
            group.create_task(_BLOWS[blow](member))


async def _kill(member: Member) -> None:
    member.send(signal.SIGKILL)
    await member.ended()
    await member.start()


async def _terminate(member: Member) -> None:
    member.send(signal.SIGTERM)
    await member.ended()
    await member.start()


async def _stop(member: Member) -> None:
    """Longer than its leases, then on as if nothing had been."""
    member.send(signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE)
    member.send(signal.SIGCONT)


_BLOWS = {"kill": _kill, "terminate": _terminate, "stop": _stop}


async def _calm(fleet: Fleet) -> None:
    """Every process is there again."""
    for member in fleet.members:
        member.send(signal.SIGCONT)
        if not member.is_ready:
            member.send(signal.SIGKILL)
            await member.ended()
            await member.start()


async def _check(user: User, conversation: str, turns: list[Turn], figures: Figures, statuses: Counter[str]) -> int:
    """Each turn is final and replays as it was shown; the conversation has each item once, in order."""
    said: list[str] = []
    retaken = 0
    for turn in turns:
        response = await user.call("GET", f"/responses/{turn.id}")
        statuses[response["status"]] += 1
        if response["status"] not in ("completed", "incomplete", "failed", "cancelled"):
            figures.violations.append(f"{turn.id}: still {response['status']}")
        replay = await user.replay(turn)
        differing = [number for number, block in turn.blocks.items() if replay.get(number) != block]
        if differing or set(replay) != set(turn.blocks):
            figures.violations.append(f"{turn.id}: events {differing[:5]} are replayed otherwise")
        retaken += len(response["output"]) > 1
        for item in response["output"]:
            _check_text(turn, item, figures)
        if response["status"] != "failed":
            said += [turn.text, *(item["id"] for item in response["output"])]
    found = await _items(user, conversation)
    if found != said:
        figures.violations.append(f"{conversation}: has {found}, should have {said}")
    return retaken


async def _items(user: User, conversation: str) -> list[str]:
    """What the conversation shows: the users' words, and the ids of answers."""
    page = await user.call("GET", f"/conversations/{conversation}/items?order=asc&limit=100")
    return [item["content"][0]["text"] if item.get("role") == "user" else item["id"] for item in page["data"]]


def _check_text(turn: Turn, item: Any, figures: Figures) -> None:
    """One answer comes from one call of the model, without a gap."""
    if item["type"] != "message":
        return
    text = "".join(part["text"] for part in item["content"])
    words = [_WORD.fullmatch(word) for word in text.split()]
    found = [(int(word[1]), int(word[2])) for word in words if word]
    if len(found) < len(words) or (found and found != [(found[0][0], place) for place in range(len(found))]):
        figures.violations.append(f"{turn.id}: two answers in one: {text!r}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.chaos", description="Real processes under fire.")
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--seed", default="chaos")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="companion-chaos-") as folder:
        result = asyncio.run(run(Plan(turns=given.turns, seed=given.seed), Path(folder)))
    print(json.dumps(result.summary()))  # noqa: T201
    print(*result.figures.violations[:20], sep="\n")  # noqa: T201
    return 1 if result.figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
