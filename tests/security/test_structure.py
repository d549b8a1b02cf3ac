"""Isolation by construction: nobody reads or writes an owner's container without saying whose part of it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

OWNED = {"STATE", "KNOWLEDGE"}
HELPERS = {"mutate", "everything"}
"""Functions that take a store first, and then what its methods take."""
METHODS = {"read", "query", "scan", "batch", "changes", "erase"}
WHOSE = {"owner", "account", "guest", "partition", "OPERATOR"}
"""What the last part of a partition's name may be: an owner who was recognised, or one that a record names."""

ACROSS = {
    "functions.account": "the operator's view of use",
    "shared.adoption.service": "guests to look after",
    "shared.jobs.store_queue": "messages",
    "shared.privacy.service": "jobs, deletions and retention that are due",
    "shared.turns.recovery": "turns whose process died",
}
"""Who may look across owners, and for what; none of them for a caller, but for an operator."""


class Call(NamedTuple):
    module: str
    line: int
    method: str
    arguments: list[str]


def calls() -> Iterator[Call]:
    for path in sorted([*(ROOT / "shared").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module.startswith("shared.storage."):
            continue  # the adapters themselves, which pass on what they are given
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            arguments = [ast.unparse(each) for each in node.args]
            if isinstance(node.func, ast.Attribute):
                yield Call(module, node.lineno, node.func.attr, arguments)
            elif isinstance(node.func, ast.Name) and node.func.id in HELPERS:
                yield Call(module, node.lineno, "batch", arguments[1:])
            elif isinstance(node.func, ast.Name) and node.func.id == "overdue":
                yield Call(module, node.lineno, "due", arguments[1:])


def test_every_use_of_an_owners_container_names_the_owner() -> None:
    used = [call for call in calls() if call.method in METHODS and call.arguments and call.arguments[0] in OWNED]
    wrong = [call for call in used if len(call.arguments) < 2 or call.arguments[1].rpartition(".")[2] not in WHOSE]

    assert len(used) > 50
    assert wrong == []


def test_only_a_few_look_across_owners() -> None:
    found = {call.module for call in calls() if call.method == "due"}

    assert found == set(ACROSS)


def test_every_function_of_a_repository_takes_an_owner() -> None:
    functions = [
        (path.name, node)
        for path in (ROOT / "shared").rglob("repository.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AsyncFunctionDef)
    ]
    wrong = [node.name for _, node in functions if "owner" not in [arg.arg for arg in node.args.args]]

    assert functions
    assert wrong == []


def test_no_edge_takes_an_owner_from_anywhere_but_the_credential() -> None:
    """Handlers say `call.principal.owner`, or pass the principal on."""
    owners = {
        (call.module, argument)
        for call in calls()
        if call.module.startswith("functions.")
        for argument in call.arguments
        if argument.rpartition(".")[2] == "owner"
    }
    # `principal` is what _edge authenticated; `owner = call.principal.owner` is checked below
    allowed = {"call.principal.owner", "principal.owner", "owner"}
    for module in {module for module, argument in owners if argument == "owner"}:
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert "owner = call.principal.owner" in text, module

    assert {argument for _, argument in owners} <= allowed
    assert {module for module, argument in owners if argument == "principal.owner"} <= {"functions._edge"}
