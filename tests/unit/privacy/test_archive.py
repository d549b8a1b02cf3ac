"""What an export holds of deleted conversations."""

import io
import zipfile

import orjson
import pytest

from shared.conversations.records import Json
from shared.privacy.archive import write_archive


def turn(id_: str, parent: str | None, **fields: object) -> Json:
    known: Json = {"id": id_, "kind": "turn", "group": "conv", "status": "completed", "is_stored": True}
    return {**known, "parent": parent, **fields}


def exported(*turns: Json) -> dict[str, bool]:
    header: Json = {"id": "conv", "kind": "conversation.deleted"}
    archive = zipfile.ZipFile(io.BytesIO(write_archive([header, *turns], [], now=0.0)))
    lines = archive.read("records/turn.jsonl").splitlines() if "records/turn.jsonl" in archive.namelist() else []
    return {body["id"]: body["is_stored"] for body in map(orjson.loads, lines)}


ROOT = turn("root", None, conversation="conv")


@pytest.mark.parametrize("is_fork_first", [False, True])
def test_a_deleted_fork_that_others_go_on_from_keeps_its_history(*, is_fork_first: bool) -> None:
    turns = [ROOT, turn("fork", "root", is_stored=False), turn("leaf", "fork")]

    assert exported(*turns[:: -1 if is_fork_first else 1]) == {"root": False, "fork": False, "leaf": True}


def test_a_deleted_fork_that_nothing_goes_on_from_keeps_nothing_of_a_deleted_conversation() -> None:
    """As when that is purged."""
    assert "root" not in exported(ROOT, turn("fork", "root", is_stored=False))


def test_parents_in_a_circle_end() -> None:
    turns = [turn("a", "b", conversation="conv"), turn("b", "a", conversation="conv"), turn("fork", "a")]

    assert exported(*turns) == {"a": False, "b": False, "fork": True}
