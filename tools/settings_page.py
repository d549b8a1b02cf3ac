"""Writes docs/reference/settings.md from `shared.settings.VARIABLES`, the one list of environment variables."""

from pathlib import Path

from shared.settings import VARIABLES, Variable

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

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


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
