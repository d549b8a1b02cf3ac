"""Makes a dataset of what users said of answers, and of what candidates said in the shadow of them.

    python -m evals.collect --owner ada --out evals/datasets/collected.yaml [--kind feedback|shadow|both]

Reads the store that the environment names. A case is the turn's input; the grader is a model that is told what was
thought of the answer that was given (feedback), or is given the production answer to compare with (shadow). The file
holds what users wrote: treat it like their data.
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

type Json = dict[str, Any]

PAGE = 100
MOST = 1000
LONGEST = 4000
"""Characters of an answer that a rubric quotes."""

_BAD = frozenset({"down", "bad", "negative", "-1", "0", "1", "2"})
_GOOD = frozenset({"up", "good", "positive", "+1", "4", "5"})


async def collect(app: App, owner: str, kinds: Sequence[str]) -> list[Json]:
    """Cases, oldest first; records whose turn is gone are left out."""
    cases: list[Json] = []
    for kind in kinds:
        for record in await _records(app, owner, kind):
            turn_id = record.get("turn") or record.get("response_id") or record.get("response")
            found = await find_turn(app.store, owner, str(turn_id)) if turn_id else None
            if found is not None and found.record.input:
                cases.append(case_of(kind, record, found.record))
    return cases


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


def case_of(kind: str, record: Json, turn: TurnRecord) -> Json:
    """A case as a dataset's YAML has it."""
    answer = text_of(turn.output)[:LONGEST]
    fields: Json = {"input": [_input(item) for item in turn.input]}
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
    rating = str(record.get("rating")).lower()
    if rating in _BAD:
        return (
            f"A user was unhappy with this answer:\n{answer}\nand said: {said}\nThe new one does not have that fault."
        )
    if rating in _GOOD:
        return f"A user was happy with this answer:\n{answer}\nand said: {said}\nThe new one is at least as good."
    return f"A user said of this answer:\n{answer}\nthe following: {said}\nThe new one takes that to heart."


def _input(item: Json) -> Json:
    """As a client would send it: without the id of a turn that is not its own."""
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
