"""Delta sync while several hosts write: whoever follows the changes, anyhow, ends with the same copy."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from functions.changes import render
from shared.app import App
from shared.clock import SystemClock
from shared.conversations.service import create_conversation, delete_conversation, restore_conversation
from shared.conversations.service import update_conversation as update
from shared.errors import AssistantError
from shared.principal import Principal
from shared.projects.service import create_project, delete_project
from shared.sync.service import changes_since
from tests.security.deaths import process

type Json = dict[str, Any]

ANN = Principal(owner="ann")


class Client:
    """A copy of an owner's data, and how far it has come; each request goes to any host."""

    def __init__(self, hosts: list[App], chance: random.Random) -> None:
        self.hosts = hosts
        self.chance = chance
        self.copy: dict[str, Json] = {}
        self.token: str | None = None

    async def catch_up(self) -> None:
        has_more = True
        while has_more:
            host, limit = self.chance.choice(self.hosts), self.chance.choice([1, 2, 7, 100])
            changed = await changes_since(host, "ann", since=self.token, limit=limit)
            for stored in changed.documents:
                shown = render(stored.body, ANN)
                if shown is None:
                    continue
                if shown["object"] == "deletion":
                    self.copy.pop(shown["id"], None)
                else:
                    self.copy[shown["id"]] = shown
            self.token, has_more = changed.token, changed.has_more


async def write(host: App, chance: random.Random, known: list[str]) -> None:
    """One random change; that it meets another one is no matter."""
    try:
        match chance.randrange(6):
            case 0:
                known.append((await create_conversation(host, "ann", metadata={}, items="Hello.")).id)
            case 1:
                known.append((await create_project(host, "ann", name="p", instructions=None, metadata={})).id)
            case 2 if known:
                await update(host, "ann", chance.choice(known), title=str(chance.random()))
            case 3 if known:
                await delete_conversation(host, "ann", chance.choice(known))
            case 4 if known:
                await restore_conversation(host, "ann", chance.choice(known))
            case 5 if known:
                await delete_project(host, "ann", chance.choice(known))
            case _:
                pass
    except AssistantError:
        return


@pytest.mark.parametrize("seed", range(6))
async def test_all_copies_are_the_same_in_the_end(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with (
        process(tmp_path, SystemClock()) as one,
        process(tmp_path, SystemClock()) as two,
        process(tmp_path, SystemClock()) as three,
    ):
        hosts, known = [one, two, three], list[str]()
        eager, lazy = Client(hosts, chance), Client(hosts, chance)

        async def writer(host: App) -> None:
            for _ in range(25):
                await write(host, chance, known)

        async def reader() -> None:
            for _ in range(15):
                await eager.catch_up()
                await asyncio.sleep(0.002)

        await asyncio.gather(*map(writer, hosts), reader(), reader_of(lazy))
        fresh = Client(hosts, chance)
        for client in (eager, lazy, fresh):
            await client.catch_up()

    assert len(fresh.copy) > 5
    assert eager.copy == lazy.copy == fresh.copy


async def reader_of(client: Client) -> None:
    await asyncio.sleep(0.02)
    await client.catch_up()
