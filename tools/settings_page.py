"""Writes docs/reference/settings.md and local.settings.json.example from `shared.settings.VARIABLES`, the one list."""

import json
from pathlib import Path

from shared.settings import VARIABLES, Variable

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "settings.md"
EXAMPLE = ROOT / "local.settings.json.example"
"""For `func start`, which reads it from local.settings.json."""

OF_THE_HOST = {
    "FUNCTIONS_WORKER_RUNTIME": "python",
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "AzureWebJobsDisableHomepage": "true",
}
ON_A_LAPTOP = {"COMPANION_LOCAL_OWNER": "local"}
"""Where the example says something else than the default."""

INTRODUCTION = """\
# Settings

Every setting is an environment variable, read once at start. A value that cannot be used stops the start with a
message that names the variable. This page is generated from `shared/settings.py` by `make docs`.

| variable | default | what it does |
|---|---|---|
"""


def row(variable: Variable) -> str:
    default = f"`{variable.default}`" if variable.default else "empty"
    secret = " Secret: never printed." if variable.secret else ""
    return f"| `{variable.name}` | {default} | {variable.help.replace('|', chr(92) + '|')}{secret} |\n"


def page() -> str:
    return INTRODUCTION + "".join(map(row, VARIABLES))


def example() -> str:
    """Every variable at its default, but for the owner that calls without a key."""
    values = OF_THE_HOST | {variable.name: variable.default for variable in VARIABLES} | ON_A_LAPTOP
    return json.dumps({"IsEncrypted": False, "Values": values}, indent=2) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
    EXAMPLE.write_text(example())
