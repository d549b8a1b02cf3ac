"""Makes a dataset of what users said of answers, and of what candidates said in the shadow of them.

    python -m evals.collect --owner ada --out evals/datasets/collected.yaml [--kind feedback|shadow|both]

Reads the store that the environment names. A case is the turn's input, with what was said before it; the grader is a
model that is told what was thought of the answer that was given (feedback), or is given the production answer to
compare with (shadow). The file holds what users wrote: treat it like their data.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from evals.targets import text_of
from shared.app import App
from shared.bootstrap import build_app
from shared.conversations.records import TurnRecord
from shared.conversations.repository import find_turn
from shared.settings import Settings
from shared.storage.base import STATE, Query
from shared.turns.context import model_items

type Json = dict[str, Any]

PAGE = 100
MOST = 1000
MOST_BEFORE = 20
"""Turns before a case's own that it carries along."""
LONGEST = 4000
"""Characters of an answer that a rubric quotes."""


async def collect(app: App, owner: str, kinds: Sequence[str]) -> list[Json]:
    """Cases, oldest first; records whose turn is gone are left out."""
    cases: list[Json] = []
    for kind in kinds:
        for record in await _records(app, owner, kind):
            found = await find_turn(app.store, owner, record["turn" if kind == "shadow" else "response"])
            if found is not None and found.record.input:
                cases.append(case_of(kind, record, found.record, await _before(app, owner, found.record)))
    return cases


async def _before(app: App, owner: str, turn: TurnRecord) -> list[TurnRecord]:
    """The turns that one continues, oldest first."""
    path: list[TurnRecord] = []
    while turn.parent is not None and len(path) < MOST_BEFORE:
        found = await find_turn(app.store, owner, turn.parent)
        if found is None:
            break
        turn = found.record
        path.append(turn)
    return path[::-1]


async def _records(app: App, owner: str, kind: str) -> list[Json]:
    records: list[Json] = []
    after: str | None = None
    while len(records) < MOST:
        page = await app.store.query(STATE, owner, Query(kind=kind, after=after, order="asc", limit=PAGE))
        records += [stored.body for stored in page]
        if len(page) < PAGE:
            break
        after = page[-1].body.get("sort")
    return records


def case_of(kind: str, record: Json, turn: TurnRecord, before: Sequence[TurnRecord] = ()) -> Json:
    """A case as a dataset's YAML has it."""
    answer = text_of(turn.output)[:LONGEST]
    said = [item for past in before for item in model_items(past)]
    fields: Json = {"input": [_as_sent(item) for item in (*said, *turn.input) if item["type"] != "reasoning"]}
    if isinstance(turn.params.get("instructions"), str):
        fields["instructions"] = turn.params["instructions"]
    known = {
        "response": turn.id,
        "model": turn.params.get("model"),
        "prompt": turn.prompt_version,
        "flags": turn.flags,
        "rating": record.get("rating"),
        "comment": record.get("comment"),
        "candidate": record.get("deployment"),
        "candidate_said": record.get("text"),
        "candidate_usd": record.get("cost"),
        "candidate_seconds": record.get("seconds"),
    }
    return {
        "name": f"{kind} {record.get('id')}",
        "inputs": fields,
        "metadata": {name: value for name, value in known.items() if value is not None},
        "evaluators": [{"Judged": {"rubric": rubric(kind, record, answer)}}],
    }


def rubric(kind: str, record: Json, answer: str) -> str:
    if kind == "shadow":
        return f"The answer is at least as right, complete and helpful as this one of production:\n{answer}"
    said = str(record.get("comment") or ", ".join(record.get("reasons") or []) or "nothing more")
    if record["rating"] == "up":
        return f"A user was happy with this answer:\n{answer}\nand said: {said}\nThe new one is at least as good."
    return f"A user was unhappy with this answer:\n{answer}\nand said: {said}\nThe new one does not have that fault."


def _as_sent(item: Json) -> Json:
    """As a client would send it: without the id of a turn that is not its own; of an answer, the words."""
    if item.get("role") == "assistant":
        return {"role": "assistant", "content": text_of([item])}
    return {name: value for name, value in item.items() if name not in ("id", "status")}


async def _read(owner: str, kinds: Sequence[str]) -> list[Json]:
    app = build_app(Settings.read())
    try:
        return await collect(app, owner, kinds)
    finally:
        await app.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evals.collect", description="Makes a dataset of feedback and shadow calls.")
    parser.add_argument("--owner", required=True, action="append", help="whose; may be given several times")
    parser.add_argument("--out", required=True)
    parser.add_argument("--kind", choices=("feedback", "shadow", "both"), default="both")
    asked = parser.parse_args(arguments)
    kinds = ("feedback", "shadow") if asked.kind == "both" else (asked.kind,)
    cases = [case for owner in asked.owner for case in asyncio.run(_read(owner, kinds))]
    dataset = {"name": Path(asked.out).stem, "cases": cases}
    Path(asked.out).write_text(yaml.safe_dump(dataset, sort_keys=False, allow_unicode=True))
    print(f"{len(cases)} cases in {asked.out}")
    return 0 if cases else 1


if __name__ == "__main__":
    sys.exit(main())
