"""The application: settings and ports, put together once by `bootstrap.build_app`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.flags.base import Flags, NoFlags
from shared.identity.oidc import Oidc
from shared.ids import Ids
from shared.jobs.base import Queue
from shared.models.base import Embedder
from shared.models.router import Router
from shared.prompts.library import PromptLibrary
from shared.safety.base import Moderator
from shared.safety.lexicon import Lexicon
from shared.settings import Settings
from shared.storage.base import BlobStore, Store
from shared.tools.registry import ToolRegistry
from shared.turns.live import LiveTurns

if TYPE_CHECKING:
    from shared.safety.guard import Guardrails


class Reach:
    """How many turns back each thread's context went last: so the next read takes those and hardly more.

    A hint, never a fact: where it is missing or too small, more is read.
    """

    SPARE = 2
    MOST_THREADS = 4096

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def of(self, thread: str, *, most: int) -> int:
        return min(most, self._turns.get(thread, most))

    def forget(self, thread: str) -> None:
        """It was too small."""
        self._turns.pop(thread, None)

    def remember(self, thread: str, turns: int) -> None:
        self._turns.pop(thread, None)
        self._turns[thread] = turns + self.SPARE
        if len(self._turns) > self.MOST_THREADS:
            del self._turns[next(iter(self._turns))]


@dataclass(frozen=True, kw_only=True)
class App:
    """What edges, the job worker and turns/run.py see; everything below takes just the ports it uses."""

    settings: Settings
    store: Store
    blobs: BlobStore
    models: Router
    embedder: Embedder
    tools: ToolRegistry
    queue: Queue
    clock: Clock
    ids: Ids
    oidc: Oidc
    host: str
    """This process, among those that share the store."""
    prompts: PromptLibrary = field(default_factory=PromptLibrary)
    flags: Flags = field(default_factory=NoFlags)
    guardrails: "Guardrails | None" = None
    """None: nothing checks turns."""
    moderator: Moderator = field(default_factory=Lexicon)
    live: LiveTurns = field(default_factory=LiveTurns)
    reach: Reach = field(default_factory=Reach)

    def describe(self) -> list[tuple[str, str]]:
        """What it runs on, a line each: for the start banner."""
        storage = self.settings.storage
        store = f"Cosmos DB at {storage.cosmos_endpoint}" if storage.cosmos_endpoint else f"SQLite in {storage.data}"
        return [("store", store), ("model", self.models.describe())]

    async def close(self, seconds: float = 10.0) -> None:
        """Let running turns end for so long, then release every connection."""
        await self.live.drain(seconds)
        await self.flags.close()
        if self.guardrails is not None:
            await self.guardrails.close()
        await self.moderator.close()
        await self.queue.close()
        await self.models.close()
        await self.embedder.close()
        await self.blobs.close()
        await self.store.close()
