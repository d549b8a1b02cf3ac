"""The containers of the templates are those the code sets up in emulators, and ARM knows every name in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.jobs.base import JOBS, TURNS, TURNS_LOW
from shared.settings import Settings
from shared.storage import blob
from shared.storage.cosmos import container_definitions
from tools.bicep_gate import arm, syntax
from tools.bicep_gate.resources import PINS, json_problems

INFRA = Path(__file__).parents[3] / "infra"
CONTAINERS: list[dict[str, Any]] = json.loads((INFRA / "containers.json").read_text())
SEARCH = ("vectorIndexes", "fullTextIndexes")
"""What only the cloud has: no emulator here knows vectors or full text."""


def without_search() -> Iterator[dict[str, Any]]:
    for container in CONTAINERS:
        plain = {k: v for k, v in container.items() if k not in {"vectorEmbeddingPolicy", "fullTextPolicy"}}
        policy = {k: v for k, v in plain["indexingPolicy"].items() if k not in SEARCH}
        yield plain | {"indexingPolicy": policy}


def test_the_templates_and_the_code_define_the_same_containers() -> None:
    assert list(without_search()) == container_definitions()


def test_only_knowledge_is_searched_by_meaning_and_words() -> None:
    searched = [c["id"] for c in CONTAINERS if "vectorEmbeddingPolicy" in c or "fullTextPolicy" in c]
    knowledge = next(container for container in CONTAINERS if container["id"] == "knowledge")

    assert searched == ["knowledge"]
    assert [v["path"] for v in knowledge["indexingPolicy"]["vectorIndexes"]] == [
        v["path"] for v in knowledge["vectorEmbeddingPolicy"]["vectorEmbeddings"]
    ]


def test_arm_knows_every_name_in_the_container_definitions() -> None:
    pin = PINS["Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers"]
    properties = arm.expand(arm.Reference(pin.package, pin.class_name)).fields["properties"].shape
    assert isinstance(properties, arm.Reference)
    resource = arm.expand(properties).fields["resource"].shape

    assert [said for c in CONTAINERS for said in json_problems(c, resource, c["id"])] == []


def test_a_wrong_name_in_a_container_definition_is_found() -> None:
    pin = PINS["Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers"]
    shape = arm.Reference(pin.package, pin.class_name)
    wrong: dict[str, Any] = {"properties": {"resource": {"id": "x", "indexingPolicy": {"vectorIndex": []}}}}

    assert list(json_problems(wrong, shape, "x")) == [
        "x.properties.resource.indexingPolicy has no property 'vectorIndex' that can be set",
    ]


def variables() -> dict[str, str]:
    template = syntax.read(INFRA / "main.bicep")
    return {variable.name: syntax.text(variable.body) for variable in template.of("var") if variable.body}


def test_the_names_of_database_blobs_and_queues_are_those_of_the_code() -> None:
    queues = [f"'{queue}{ending}'" for queue in (TURNS, TURNS_LOW, JOBS) for ending in ("", "-poison")]

    assert variables()["databaseName"] == f"'{Settings.read({}).storage.cosmos_database}'"
    assert variables()["blobContainer"] == f"'{blob.CONTAINER}'"
    assert variables()["workQueues"] == f"[{', '.join(queues)}]"
