"""A simulated world: one store, one model, some processes of Companion on them, and what went wrong so far."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from shared.app import App
from shared.bootstrap import build_app
from shared.errors import AssistantError
from shared.ids import CountedIds
from shared.jobs.base import QueueName
from shared.models.base import Json, ModelRequest
from shared.models.router import Router
from shared.settings import Settings
from shared.storage.base import STATE, BatchFailed
from shared.tools.registry import ServerTool, ToolRegistry
from shared.turns.journal import Fenced
from shared.turns.ledger import HeadMoved, TurnTaken
from shared.turns.recovery import recover
from shared.turns.takeover import run_queued
from tests.sim.hosts import Died, Host, Point, watch_tasks
from tests.sim.loop import VirtualClock, VirtualLoop
from tests.sim.model import Asked, SimModel
from tests.sim.store import FAIR, HostStore, MemoryStore, Weather

OWNER = "owner"
TOOL_SECONDS = 0.1
RECOVERY_SECONDS = 5.0
VISIBILITY_SECONDS = 30.0

if TYPE_CHECKING:
    from tests.sim.client import Client

_ORDINARY = (AssistantError, BatchFailed, Fenced, TurnTaken, HeadMoved, asyncio.CancelledError, Died)
"""How a task may end; anything else is a bug."""


class Machine:
    """One process of Companion: the app on its own connections, the timer and the queue trigger."""

    def __init__(self, world: "World", host: Host, store: HostStore, app: App) -> None:
        self.world = world
        self.host = host
        self.store = store
        self.app = app

    def serve_background(self) -> None:
        """Let its queue trigger and its recovery timer run."""
        self.host.spawn(self._timer())
        self.host.spawn(self._trigger())

    async def _timer(self) -> None:
        while True:
            await asyncio.sleep(RECOVERY_SECONDS)
            try:
                await recover(self.app)
            except AssistantError:
                continue

    async def _trigger(self) -> None:
        while True:
            message = await self.world.queue.next()
            self.host.spawn(self._work(message))

    async def _work(self, message: "Message") -> None:
        self.host.point("queue.receive")
        try:
            live = await run_queued(self.app, message.body["owner"], message.body["turn"])
            if live is not None:
                await live.finished()
        except AssistantError:
            self.world.queue.put_back(message, after=1.0)
            return
        self.host.point("queue.complete before")
        self.world.queue.remove(message)
        self.host.point("queue.complete after")


class Message:
    """In a queue, not to be seen before its time; taken, it hides for a while and comes back if it is not removed."""

    def __init__(self, body: Json, visible_at: float) -> None:
        self.body = body
        self.visible_at = visible_at


class SimQueue:
    """What all processes send to and receive from: at least once, sometimes twice, sometimes never."""

    def __init__(self, chance: random.Random, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: list[Message] = []
        self.doubled = 0.0
        self.lost = 0.0
        self._chance = chance
        self._loop = loop
        self._changed = asyncio.Event()

    def put(self, body: Json, *, delay: float) -> None:
        if self._chance.random() < self.lost:
            return
        at = self._loop.time() + delay
        self.messages.append(Message(body, at))
        if self._chance.random() < self.doubled:
            self.messages.append(Message(body, at + 0.01))
        self._changed.set()

    def put_back(self, message: Message, *, after: float) -> None:
        message.visible_at = self._loop.time() + after
        self._changed.set()

    def remove(self, message: Message) -> None:
        if message in self.messages:
            self.messages.remove(message)

    async def next(self) -> Message:
        """The first that is visible, as soon as one is; hidden for a while."""
        while True:
            now = self._loop.time()
            found = min(self.messages, key=lambda message: message.visible_at, default=None)
            if found is not None and found.visible_at <= now:
                found.visible_at = now + VISIBILITY_SECONDS
                return found
            self._changed.clear()
            try:
                async with asyncio.timeout(None if found is None else found.visible_at - now):
                    await self._changed.wait()
            except TimeoutError:
                continue


class HostQueue:
    """A `Queue`: one process's way to it."""

    def __init__(self, queue: SimQueue, host: Host) -> None:
        self._queue = queue
        self._host = host

    async def send(self, queue: QueueName, body: Json, *, delay: float = 0.0) -> None:
        del queue
        self._host.point("queue.send before")
        await asyncio.sleep(0.002)
        self._host.point("")
        self._queue.put(body, delay=delay)
        await asyncio.sleep(0.002)
        self._host.point("queue.send after")

    async def ping(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """Nothing is open."""


class World:
    """Everything that outlives a process, and the list of broken promises."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        seed: str = "",
        weather: Weather = FAIR,
        point: Point | None = None,
        turn: Json | None = None,
    ) -> None:
        """`turn` holds what is to be other than usual in the settings of turns."""
        self.loop = loop
        self.seed = seed
        self.chance = random.Random(seed)
        self.weather = weather
        self.point = point
        self.clock = VirtualClock(loop)
        self.store = MemoryStore(self.clock)
        self.queue = SimQueue(self.chance, loop)
        self.machines: list[Machine] = []
        self.clients: list[Client] = []
        """Everybody who was shown anything."""
        self.asked: list[Asked] = []
        self.tool_runs: Counter[str] = Counter()
        """Times that each ticket of a tool was served."""
        self.violations: list[str] = []
        self.deleted: set[str] = set()
        """Responses that were to be deleted: their use is counted, though no record may tell of it."""
        self.has_unkept = False
        """A turn ran that keeps no record."""
        self.paces: Sequence[float] = (1.0,)
        """How fast the model may be, one of these a word."""
        settings = Settings.read({"COMPANION_TITLES": "off"})
        self.settings = replace(settings, turn=replace(settings.turn, **(turn or {})))
        watch_tasks(loop, self._task_ended)
        loop.set_exception_handler(self._nobody_heard)

    def start(self, name: str, *, skew: float = 0.0, weather: Weather | None = None) -> Machine:
        """One more process."""
        host = Host(name, point=self.point)
        chance = random.Random(f"{self.seed}:{name}")
        store = HostStore(self.store, host, weather=weather or self.weather, chance=chance)
        app = build_app(
            self.settings,
            store=store,
            models=Router.over(SimModel(self, host), "companion", "companion-fast"),
            tools=ToolRegistry({tool.name: tool for tool in self._tools(host)}),
            queue=HostQueue(self.queue, host),
            clock=VirtualClock(self.loop, skew=skew),
            ids=CountedIds(f"{self.seed}:{name}"),
            host=name,
        )
        machine = Machine(self, host, store, app)
        self.machines.append(machine)
        return machine

    def accuse(self, what: str) -> None:
        """A promise was broken."""
        self.violations.append(f"[{self.loop.time():.3f}] {what}")

    def turn_ids(self) -> list[str]:
        """Of every turn that there is a record of."""
        partitions = self.store.partitions(STATE)
        stored = (stored for partition in partitions for stored in self.store.all(STATE, partition))
        return [found.body["id"] for found in stored if found.body["kind"] == "turn"]

    def end(self) -> None:
        """The end of the world: every process dies."""
        for machine in self.machines:
            machine.host.die()

    def asked_model(self, host: Host, request: ModelRequest) -> int:
        """A call of the model begins; its number."""
        ids = [item["id"] for item in request.items]
        if len(set(ids)) < len(ids):
            self.accuse(f"the model is shown an item twice: {ids}")
        self.asked.append(Asked(len(self.asked), host.name, request))
        return len(self.asked) - 1

    def _tools(self, host: Host) -> list[ServerTool]:
        def tool(name: str, *, is_idempotent: bool) -> ServerTool:
            async def call(arguments: Json) -> str:
                host.point(f"tool.{name} before")
                await asyncio.sleep(TOOL_SECONDS)
                host.point("")
                self.tool_runs[f"{name} {arguments['ticket']}"] += 1
                await asyncio.sleep(TOOL_SECONDS)
                host.point(f"tool.{name} after")
                return f"{name} served {arguments['ticket']}"

            parameters = {"type": "object", "properties": {"ticket": {"type": "string"}}, "required": ["ticket"]}
            return ServerTool(
                name=name, description=name, parameters=parameters, call=call, is_idempotent=is_idempotent
            )

        return [tool("once", is_idempotent=False), tool("safe", is_idempotent=True)]

    def _task_ended(self, host: Host, task: asyncio.Task[Any]) -> None:
        if host.is_dead or task.cancelled():
            return
        failure = getattr(task, "_exception", None)  # asking by the method would count as having heard of it
        if failure is not None and not (isinstance(failure, _ORDINARY) or _is_death(failure)):
            self.accuse(f"a task of {host.name} ended with {failure!r}{_place(failure)}")

    def _nobody_heard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nothing awaited: fine in a dead process, else a bug."""
        del loop
        failure = context.get("exception")
        if _is_death(failure) or all(machine.host.is_dead for machine in self.machines):
            return
        where = _place(failure) if isinstance(failure, BaseException) else ""
        self.accuse(f"{context.get('message')}: {failure!r}{where}")


def _is_death(failure: object) -> bool:
    match failure:
        case BaseExceptionGroup(exceptions=parts):
            return all(_is_death(part) for part in parts)  # pyright: ignore[reportUnknownVariableType]
        case _:
            return isinstance(failure, Died | asyncio.CancelledError)


def _place(failure: BaseException) -> str:
    """Where it came from: the functions of the product on the way, innermost last."""
    frames = [frame for frame in extract_tb(failure.__traceback__) if "/shared/" in frame.filename]
    return "".join(f" > {frame.name}:{frame.lineno}" for frame in frames)
