"""Checks the Bicep templates without the Bicep compiler, which no package registry ships.

    python -m tools.bicep_gate [FOLDER]     prints what is wrong, exits 1 if anything is

    syntax.py      files into trees (tree-sitter), and what each file declares
    symbols.py     undefined and unused names, unknown functions and decorators, module parameters and outputs
    arm.py         the property names of a resource type, read from the azure-mgmt-* packages' models
    resources.py   resource bodies against those names; types and API versions against the table of pins
    policy.py      the rules of this house: no keys, roles on a list, diagnostics on, settings of Flex Consumption
    parameters.py  parameter files against main.bicep

It is no compiler: expressions are not typed. The real one, its linter and what-if run in the pipeline.
"""

from pathlib import Path

from tools.bicep_gate import parameters, policy, resources, symbols, syntax
from tools.bicep_gate.syntax import Problem, Template

__all__ = ["Problem", "Template", "check"]


def check(folder: Path) -> list[Problem]:
    """Everything wrong with the templates and parameter files in the folder, in file and line order."""
    templates = {path: syntax.read(path) for path in sorted(folder.rglob("*.bicep"))}
    broken = [problem for template in templates.values() for problem in syntax.problems(template)]
    if broken:
        return broken  # the trees cannot be trusted, so nothing said about them could be
    found: list[Problem] = []
    for template in templates.values():
        found += symbols.problems(template, templates)
        found += resources.problems(template)
        found += policy.problems(template)
    found += parameters.problems(folder, templates)
    return sorted(set(found))
