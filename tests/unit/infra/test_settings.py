"""Every variable the code reads is set by the templates, in the example for `func start`, and explained in the docs."""

import json
from pathlib import Path

import pytest

from shared.settings import VARIABLES
from tools import settings_page
from tools.bicep_gate import policy, syntax

ROOT = Path(__file__).parents[3]
INFRA = ROOT / "infra"

ON_A_LAPTOP_ONLY = {
    "COMPANION_DATA": "the folder of SQLite, which the cloud does not have",
    "COMPANION_LOCAL_OWNER": "a caller without a key, on loopback",
    "COMPANION_OFFLINE_DELAY": "of the model that answers where there is none",
    "COMPANION_FLAGS": "a file of flags; the cloud has App Configuration",
    "COSMOS_KEY": "emulators; the account refuses keys",
    "STORAGE_CONNECTION_STRING": "Azurite; the account refuses keys",
    "AZURE_OPENAI_API_KEY": "where keyless is not possible; here it is",
}
"""Variables that no template sets, and why."""

OF_THE_PLATFORM = {
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__blobServiceUri",
    "AzureWebJobsStorage__queueServiceUri",
    "AzureWebJobsDisableHomepage",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}
"""Settings that the Functions host reads."""

NAMES = {variable.name for variable in VARIABLES}


def set_by_templates() -> dict[str, syntax.Node]:
    found: dict[str, syntax.Node] = {}
    for path in (INFRA / "main.bicep", INFRA / "modules" / "functions.bicep"):
        template = syntax.read(path)
        found |= policy.app_settings(template)
        found |= {name: node for name, node in _given_to_apps(template).items() if name.isupper()}
    return found


def _given_to_apps(template: syntax.Template) -> dict[str, syntax.Node]:
    """The settings that differ by region stand where the module is called."""
    apps = template.find("apps")
    settings = syntax.at(apps.body, "params", "settings") if apps else None
    found: dict[str, syntax.Node] = {}
    for node in syntax.walk(settings) if settings else ():
        if node.type == "object":
            found |= syntax.members(node)
    return found


def test_every_variable_is_set_by_the_templates_or_for_a_laptop_only() -> None:
    assert NAMES - set(set_by_templates()) == set(ON_A_LAPTOP_ONLY)


def test_the_templates_set_nothing_that_nobody_reads() -> None:
    assert set(set_by_templates()) - NAMES == OF_THE_PLATFORM


def test_what_is_for_a_laptop_only_is_not_set_by_the_templates() -> None:
    assert not set(ON_A_LAPTOP_ONLY) & set(set_by_templates())


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_a_value_written_in_the_templates_is_the_default_of_the_code(variable: settings_page.Variable) -> None:
    """So that a default changed in one place is changed in both; an operator's own value goes into `settings`."""
    written = syntax.literal(set_by_templates().get(variable.name))

    assert written is None or written == variable.default


def test_the_example_names_every_variable_at_its_default() -> None:
    """`make docs` writes it."""
    assert settings_page.EXAMPLE.read_text() == settings_page.example()
    assert set(json.loads(settings_page.EXAMPLE.read_text())["Values"]) == NAMES | set(settings_page.OF_THE_HOST)


def test_every_variable_has_its_line_in_the_docs() -> None:
    lines = settings_page.PAGE.read_text().splitlines()
    explained = {line.split("`")[1] for line in lines if line.startswith("| `")}

    assert explained == NAMES


def test_secrets_come_in_as_secure_parameters() -> None:
    """A secret variable is never a literal in a template."""
    template = syntax.read(INFRA / "main.bicep")
    secure = {param.name for param in template.of("param") if "secure" in param.decorators}
    values = set_by_templates()
    secrets = [variable.name for variable in VARIABLES if variable.secret and variable.name in values]

    assert secrets
    assert [name for name in secrets if not any(word in syntax.text(values[name]) for word in secure)] == []


def test_outputs_carry_the_names_of_the_settings_they_feed() -> None:
    outputs = {output.name for output in syntax.read(INFRA / "main.bicep").of("output")}
    endpoints = {name for name in set_by_templates() if name.endswith(("_ENDPOINT", "_DATABASE"))} - OF_THE_PLATFORM

    assert endpoints <= outputs
