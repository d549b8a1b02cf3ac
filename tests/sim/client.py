"""A client as an app has one: sends, reads its stream, comes back after a break, to whatever process is there.

Everything that it was shown is kept, byte for byte, to be compared with what a replay shows.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import orjson

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import AssistantError, NotFound
from shared.models.base import Json
from shared.principal import Principal
from shared.turns.begin import begin_turn
from shared.turns.cancel import cancel_turn, delete_turn
from shared.turns.events import Batch
from shared.turns.follow import finished, follow, follow_live
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse
from tests.sim.hosts import Died
from tests.sim.world import OWNER, Machine, World

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
CALL_SECONDS = 600.0
"""Virtual seconds after which a client that got no word takes its call for stuck."""
INSIST_SECONDS = 600.0
"""Virtual seconds after which a client that keeps trying gives up: something is wrong."""


class Gone(Exception):
    """The process that served a call has died."""


class Shown:
    """One stream, as far as this client has seen it, over any number of connections."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.id: str | None = None
        self.blocks: dict[int, bytes] = {}
        self.last = -1
        self.is_over = False
        self.is_gone = False
        """It was refused for good: deleted, or never there."""

    def take(self, data: bytes) -> None:
        """What a connection delivers: each event once, in order, without a gap."""
        for block in data.split(b"\n\n"):
            if not block:
                continue
            event = orjson.loads(block[block.index(b"\ndata: ") + 7 :])
            number = event["sequence_number"]
            if number != self.last + 1:
                self._world.accuse(f"{self.id}: event {number} ({event['type']}) follows {self.last}")
            if self.is_over:
                self._world.accuse(f"{self.id}: event {number} follows the terminal one")
            self.last = number
            self.blocks[number] = block
            if number == 0:
                self.id = event["response"]["id"]
            self.is_over = event["type"] in TERMINAL

    @property
    def events(self) -> list[Json]:
        return [orjson.loads(block[block.index(b"\ndata: ") + 7 :]) for _, block in sorted(self.blocks.items())]


class Client:
    """See the module. `machines` are tried in order, the next one when one is dead or frozen."""

    def __init__(self, world: World, machines: Sequence[Machine], *, owner: str = OWNER) -> None:
        self.world = world
        self.machines = list(machines)
        self.owner = owner
        self.shown: list[Shown] = []
        self.patience: float | None = None
        """Seconds without a byte after which a connection is given up; None: never."""
        world.clients.append(self)

    @property
    def machine(self) -> Machine:
        while self.machines[0].host.is_dead and len(self.machines) > 1:
            self.machines.pop(0)
        return self.machines[0]

    def turn_over(self) -> None:
        """The next connection goes to another process."""
        self.machines.append(self.machines.pop(0))

    # calls

    async def call[T](self, work: Callable[[App], Coroutine[Any, Any, T]], machine: Machine | None = None) -> T:
        """One call of the engine in one process.

        Raises:
            Gone: the process died.
            AssistantError: it refused.
        """
        machine = machine or self.machine
        task = machine.host.spawn(work(machine.app))
        done, _ = await asyncio.wait([task], timeout=self.patience or CALL_SECONDS)
        if machine.host.is_dead:
            if done and not task.cancelled():
                task.exception()
            raise Gone
        if not done:  # it may go on there, as an abandoned request does
            if self.patience is None:
                self.world.accuse(f"a call of {machine.host.name} has no end: {task!r}")
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self.turn_over()
            raise Gone
        try:
            return task.result()
        except (asyncio.CancelledError, Died):
            raise Gone from None

    async def insist[T](self, work: Callable[[App], Coroutine[Any, Any, T]]) -> T:
        """A call that is repeated while servers die or have trouble.

        Raises:
            AssistantError: refused for good (an error of the caller's).
        """
        go_on = self._may_go_on()
        while next(go_on):
            try:
                return await self.call(work)
            except Gone:
                continue
            except AssistantError as error:
                if error.code == "response_deleted" or (error.status < 500 and error.status not in (409, 429)):
                    raise
                await asyncio.sleep(error.retry_after or 0.5)
                self.turn_over()
        self.world.accuse("a call never succeeded")
        raise Gone

    def _may_go_on(self) -> Iterator[bool]:
        """True for as long as a client keeps trying."""
        deadline = self.world.loop.time() + INSIST_SECONDS
        while self.world.loop.time() < deadline:
            yield True
        yield False

    async def send(self, *, key: str | None = None, conversation: str | None = None, **body: Any) -> TurnRecord | None:
        """A plain request; with a key it is sent again until it is answered.

        Returns:
            The turn as answered; None when the answer was lost with its process and there is no key.
        """
        request = make_request(key=key, conversation=conversation, **body)

        async def work(app: App) -> TurnRecord:
            live = await begin_turn(app, Principal(owner=self.owner), request)
            return await finished(app, self.owner, live)

        if key is not None:
            return await self.insist(work)
        try:
            return await self.call(work)
        except Gone:
            return None

    async def stream(
        self,
        *,
        key: str | None = None,
        conversation: str | None = None,
        hang_up: Callable[[int], bool] | None = None,
        come_back: bool = True,
        **body: Any,
    ) -> Shown:
        """A streamed request, resumed after every break until its terminal event.

        Args:
            hang_up: asked after each delivery (with the number of the last event): whether to break the connection.
            come_back: False: after a break the client stays away.
        """
        request = make_request(key=key, conversation=conversation, stream=True, **body)
        shown = Shown(self.world)
        self.shown.append(shown)
        go_on = self._may_go_on()
        while next(go_on):
            if shown.id is not None:
                await self._resume_once(shown, hang_up)
            elif await self._send_once(request, shown, hang_up) and key is None:
                return shown  # nobody knows the turn's name: its owner would find it in a list
            if shown.is_over or shown.is_gone or not come_back:
                return shown
        self.world.accuse(f"{shown.id}: the stream has no end")
        return shown

    async def resume(self, shown: Shown) -> None:
        """Come back to a stream after having stayed away."""
        go_on = self._may_go_on()
        while next(go_on):
            if shown.is_over or shown.is_gone:
                return
            await self._resume_once(shown, None)
        self.world.accuse(f"{shown.id}: the stream has no end")

    async def cancel(self, response_id: str) -> TurnRecord | None:
        try:
            return await self.insist(lambda app: cancel_turn(app, self.owner, response_id))
        except NotFound:
            return None

    async def delete(self, response_id: str) -> None:
        self.world.deleted.add(response_id)
        try:
            await self.insist(lambda app: delete_turn(app, self.owner, response_id))
        except NotFound:
            return

    # connections

    async def _send_once(self, request: TurnRequest, shown: Shown, hang_up: Callable[[int], bool] | None) -> bool:
        """Returns whether the connection broke before the turn's name was known."""
        caller = Principal(owner=self.owner)

        async def batches(app: App) -> AsyncGenerator[Batch]:
            live = await begin_turn(app, caller, request)
            async for batch in follow_live(app, self.owner, live):
                yield batch

        await self._connect(batches, shown, hang_up)
        return shown.id is None

    async def _resume_once(self, shown: Shown, hang_up: Callable[[int], bool] | None) -> None:
        assert shown.id is not None
        id_ = shown.id
        await self._connect(lambda app: follow(app, self.owner, id_, after=shown.last), shown, hang_up)

    async def _connect(
        self, open_: Callable[[App], AsyncGenerator[Batch]], shown: Shown, hang_up: Callable[[int], bool] | None
    ) -> None:
        """One connection, until it ends or breaks."""
        machine = self.machine
        wire: asyncio.Queue[bytes | AssistantError | None] = asyncio.Queue()

        async def serve() -> None:
            batches = open_(machine.app)
            try:
                async for batch in batches:
                    if not machine.host.is_dead:
                        wire.put_nowait(batch.data)
                wire.put_nowait(None)
            except AssistantError as error:
                wire.put_nowait(error)
            finally:
                await batches.aclose()

        machine.host.on_death.append(lambda: wire.put_nowait(None))
        task = machine.host.spawn(serve())
        try:
            while True:
                try:
                    async with asyncio.timeout(self.patience or CALL_SECONDS):
                        delivered = await wire.get()
                except TimeoutError:
                    if self.patience is None:
                        self.world.accuse(f"{shown.id}: no word for {CALL_SECONDS} s after event {shown.last}")
                    self.turn_over()
                    return
                if delivered is None:
                    return
                if isinstance(delivered, AssistantError):
                    if delivered.status == 404 or delivered.code == "response_deleted":
                        shown.is_gone = True
                    await asyncio.sleep(delivered.retry_after or 0.2)
                    self.turn_over()
                    return
                shown.take(delivered)
                if shown.is_over:
                    return
                if hang_up is not None and hang_up(shown.last):
                    self.turn_over()
                    return
        finally:
            task.cancel()


def make_request(*, key: str | None = None, conversation: str | None = None, **body: Any) -> TurnRequest:
    """As the edge makes one of a request's body and headers."""
    if conversation is not None:
        body["conversation"] = conversation
    digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    return TurnRequest(create=CreateResponse.model_validate(body), send_key=key, body_hash=digest)
