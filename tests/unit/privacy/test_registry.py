"""Every kind of record says what becomes of it when its owner exports and erases."""

import ast
from collections.abc import Iterator
from pathlib import Path

from shared.privacy.registry import KINDS, OWNERS_DIRECTORY

ROOT = Path(__file__).parents[3]


def declared() -> Iterator[str]:
    """The `kind` of every class that is a record, by the source: so that none hides in a module nobody imports."""
    bases = {"Record"}
    for path in sorted((ROOT / "shared").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & bases:
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "kind":
                        found = ast.unparse(line.annotation)
                        assert found.startswith("Literal["), f"{path}: {node.name}.kind must be a Literal"
                        yield from ast.literal_eval(f"[{found.removeprefix('Literal[').removesuffix(']')}]")


def test_every_kind_of_record_is_registered() -> None:
    missing = sorted(set(declared()) - KINDS.keys())

    assert not missing, f"{missing}: add them to shared/privacy/registry.py, with their export and erase"


def test_nothing_is_registered_that_does_not_exist() -> None:
    assert KINDS.keys() <= set(declared())


def test_what_is_imported_is_exported_too_and_names_its_ids() -> None:
    for kind in KINDS.values():
        assert not kind.is_imported or kind.is_exported
        assert not kind.is_imported or kind.id_prefix or kind.name == "profile"


def test_directory_records_are_reached_through_records_of_the_owner() -> None:
    reached = {"api_key": "key_entry", "share": "share_entry", "adopted": "guest"}

    assert set(OWNERS_DIRECTORY) == set(reached)
    assert {kind.name for kind in KINDS.values() if kind.erased == "by its owner's record"} == set(reached.values())
