"""The offline check of the templates: nothing wrong with ours, and each of these defects found."""

import shutil
from pathlib import Path

import pytest

from tools.bicep_gate import arm, check, syntax
from tools.bicep_gate.resources import PINS

INFRA = Path(__file__).parents[3] / "infra"


def test_nothing_is_wrong_with_our_templates() -> None:
    assert [str(problem) for problem in check(INFRA)] == []


SEEDED = {
    "a brace is missing": (
        ("modules/identity.bicep", "  tags: tags\n}\n\noutput id", "  tags: tags\n\noutput id"),
        ("syntax", "cannot be read"),
    ),
    "a name nobody declared": (
        ("modules/network.bicep", "natGateway: { id: exit.id }", "natGateway: { id: gateway.id }"),
        ("undefined", "'gateway'"),
    ),
    "a parameter nobody reads": (
        (
            "modules/identity.bicep",
            "param tags object\n",
            "param tags object\n\n@description('Required. X.')\nparam x int\n",
        ),
        ("unused", "'x'"),
    ),
    "a variable nobody reads": (
        ("main.bicep", "var hasFlags =", "var hasNothing = true\nvar hasFlags ="),
        ("unused", "'hasNothing'"),
    ),
    "an import nobody uses": (
        ("modules/monitoring.bicep", "import { logs }", "import { logs, scale }"),
        ("unused", "'scale'"),
    ),
    "an import the other file does not export": (
        ("modules/monitoring.bicep", "import { logs }", "import { logging as logs }"),
        ("undefined", "does not export 'logging'"),
    ),
    "a name declared twice": (
        ("modules/workbook.bicep", "output id string", "var workbook = 1\n\noutput id string"),
        ("duplicate", "'workbook'"),
    ),
    "a required module parameter not given": (
        ("main.bicep", "    keep: keepLogs\n", ""),
        ("module", "'keep' is required"),
    ),
    "a module parameter that does not exist": (
        ("main.bicep", "    keep: keepLogs\n", "    keep: keepLogs\n    sku: 'PerGB2018'\n"),
        ("module", "no parameter 'sku'"),
    ),
    "a module output that does not exist": (
        ("main.bicep", "state.outputs.endpoint\n  COSMOS_DATABASE", "state.outputs.uri\n  COSMOS_DATABASE"),
        ("module", "no output 'uri'"),
    ),
    "a module that is not there": (
        ("main.bicep", "'modules/budget.bicep'", "'modules/budgets.bicep'"),
        ("module", "'modules/budgets.bicep'"),
    ),
    "a registry module": (
        ("main.bicep", "'modules/identity.bicep'", "'br/public:avm/res/managed-identity/user-assigned-identity:0.4.0'"),
        ("module", "cannot be checked offline"),
    ),
    "a function Bicep does not have": (
        ("main.bicep", "uniqueString(subscription", "uniqString(subscription"),
        ("function", "'uniqString'"),
    ),
    "a decorator Bicep does not have": (
        ("modules/storage.bicep", "@maxLength(24)", "@maximumLength(24)"),
        ("decorator", "'maximumLength'"),
    ),
    "a file that is not there": (
        ("modules/workbook.bicep", "'../workbook.json'", "'../workbooks.json'"),
        ("file", "'../workbooks.json'"),
    ),
    "a property ARM does not know": (
        ("modules/functions.bicep", "instanceMemoryMB: size.memoryMB", "instanceMemoryMb: size.memoryMB"),
        ("property", "it has 'instanceMemoryMB'"),
    ),
    "a property one level too high": (
        (
            "modules/cosmos.bicep",
            "  kind: 'GlobalDocumentDB'\n",
            "  kind: 'GlobalDocumentDB'\n  disableLocalAuth: true\n",
        ),
        ("property", "no property 'disableLocalAuth'"),
    ),
    "a property of another kind of the same thing": (
        ("modules/cosmos.bicep", "continuousModeProperties", "periodicModeProperties"),
        ("property", "'periodicModeProperties'"),
    ),
    "a property behind a ternary": (
        ("modules/routes.bicep", "probeRequestType: 'HEAD'", "probeMethod: 'HEAD'"),
        ("property", "'probeMethod'"),
    ),
    "a read-only property set": (
        ("modules/functions.bicep", "    httpsOnly: true\n", "    httpsOnly: true\n    defaultHostName: name\n"),
        ("property", "read-only"),
    ),
    "a required property left out": (
        ("modules/budget.bicep", "    timeGrain: 'Monthly'\n", ""),
        ("property", "'timeGrain'"),
    ),
    "a value the enum does not know": (
        ("modules/functions.bicep", "name: 'python', version", "name: 'python3', version"),
        ("value", "'python3'"),
    ),
    "a resource type nobody listed": (
        ("modules/identity.bicep", "userAssignedIdentities@", "userIdentities@"),
        ("type", "userIdentities"),
    ),
    "another API version than the pinned one": (
        ("modules/identity.bicep", "@2024-11-30", "@2018-11-30"),
        ("version", "pinned to 2024-11-30"),
    ),
    "a key is read": (
        (
            "modules/storage.bicep",
            "output id string = account.id",
            "output id string = account.listKeys().keys[0].value",
        ),
        ("keys", "listKeys"),
    ),
    "a key is read the old way": (
        (
            "modules/cosmos.bicep",
            "output id string = account.id",
            "output id string = listConnectionStrings(account.id, '2024-01-01')",
        ),
        ("keys", "listConnectionStrings"),
    ),
    "local authentication on": (
        ("modules/openai.bicep", "disableLocalAuth: true", "disableLocalAuth: false"),
        ("locked", "disableLocalAuth must be true"),
    ),
    "local authentication not mentioned": (
        ("modules/appconfig.bicep", "    disableLocalAuth: true\n", ""),
        ("locked", "disableLocalAuth must be true"),
    ),
    "shared keys of a storage account": (
        ("modules/storage.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAccess: true"),
        ("locked", "allowSharedKeyAccess must be false"),
    ),
    "a role that is not on the list": (
        ("modules/openai.bicep", "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
        ("role", "8e3af657"),
    ),
    "a role over the whole group": (
        ("modules/monitoring.bicep", "  scope: insights\n  name: guid", "  name: guid"),
        ("role", "whole group"),
    ),
    "a role without the type of its principal": (
        ("modules/appconfig.bicep", "    principalType: 'ServicePrincipal'\n", ""),
        ("role", "principalType"),
    ),
    "data of the whole Cosmos DB account": (
        ("modules/cosmos.bicep", "'${account.id}/dbs/${db.name}/colls/${grant.container}'", "account.id"),
        ("role", "beyond one container"),
    ),
    "no diagnostics": (
        ("modules/functions.bicep", "  scope: app\n", "  scope: plan\n"),
        ("diagnostics", "app has no diagnostic settings"),
    ),
    "a setting that Flex Consumption refuses": (
        (
            "modules/functions.bicep",
            "var platformSettings = {\n",
            "var platformSettings = {\n  FUNCTIONS_WORKER_RUNTIME: 'python'\n",
        ),
        ("flex", "FUNCTIONS_WORKER_RUNTIME"),
    ),
    "Python's concurrency of one": (
        (
            "modules/functions.bicep",
            "        triggers: { http: { perInstanceConcurrency: size.httpConcurrency } }\n",
            "",
        ),
        ("said", "perInstanceConcurrency must be set"),
    ),
    "updates that stop everything": (
        ("modules/functions.bicep", "type: 'RollingUpdate'", "type: 'Recreate'"),
        ("locked", "siteUpdateStrategy.type"),
    ),
    "a secret parameter in the clear": (
        ("main.bicep", "@secure()\nparam modelServerApiKey", "param modelServerApiKey"),
        ("secret", "'modelServerApiKey' must be @secure()"),
    ),
    "a secret in an output": (
        ("main.bicep", "output OPENAI_MODEL string = modelName", "output OPENAI_MODEL string = ownerKey"),
        ("secret", "'OPENAI_MODEL' would be stored"),
    ),
    "a parameter that does not say whether it is required": (
        ("main.bicep", "'Optional. Front Door", "'Front Door"),
        ("described", "'edge'"),
    ),
    "a resource without tags": (
        (
            "modules/network.bicep",
            "  name: 'nat-${token}'\n  location: location\n  tags: tags\n",
            "  name: 'nat-${token}'\n  location: location\n",
        ),
        ("tags", "exit must carry the tags"),
    ),
    "the clock in a template": (
        ("modules/workbook.bicep", "guid(insightsId, 'companion')", "guid(insightsId, utcNow())"),
        ("pure", "utcNow"),
    ),
    "a parameter file that names what is not there": (
        ("prod.bicepparam", "param edge =", "param frontDoor ="),
        ("parameters", "no parameter 'frontDoor'"),
    ),
    "a parameter file that forgets what is required": (
        ("dev.bicepparam", "param ownerKey =", "param modelServer ="),
        ("parameters", "'ownerKey' is required"),
    ),
    "azd's parameter file names what is not there": (
        ("main.parameters.json", '"flagStore"', '"flags"'),
        ("parameters", "no parameter 'flags'"),
    ),
}


@pytest.mark.parametrize("defect", SEEDED)
def test_a_seeded_defect_is_found(defect: str, tmp_path: Path) -> None:
    (file, old, new), (rule, said) = SEEDED[defect]
    copy = tmp_path / "infra"
    shutil.copytree(INFRA, copy)
    source = (copy / file).read_text()
    assert source.count(old) >= 1, f"{file} no longer holds {old!r}"
    (copy / file).write_text(source.replace(old, new, 1))

    found = check(copy)

    assert [problem for problem in found if problem.rule == rule and said in problem.message], found


def test_a_defect_is_said_with_file_line_and_rule(tmp_path: Path) -> None:
    (tmp_path / "main.bicep").write_text("var a = 1\n\noutput b int = c\n")

    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in check(tmp_path)] == [
        "main.bicep:1: unused: var 'a' is never read",
        "main.bicep:3: undefined: 'c' is not declared in this file",
    ]


GOOD = """
import { shape as form } from 'types.bicep'
@description('Required. Names.')
param names string[]
@description('Optional. Form.')
param form1 form?
func greet(who string) string => 'hello ${who}'
var pairs = [for (name, i) in names: { name: greet(name), at: i }]
var lengths = map(names, name => length(name))
var both = reduce(names, '', (a, b) => '${a}${b}')
var raw = '''
 ${not} an interpolation
'''
output all object = { pairs: pairs, lengths: lengths, both: both, raw: raw, form: form1.?kind ?? 'none', '${both}': 1 }
"""


def test_local_names_are_no_false_alarm(tmp_path: Path) -> None:
    """Of loops, lambdas, functions; aliases; text that only looks like an interpolation."""
    (tmp_path / "types.bicep").write_text("@export()\ntype shape = {\n  kind: 'a' | 'b'\n}\n")
    (tmp_path / "main.bicep").write_text(GOOD)

    assert check(tmp_path) == []


@pytest.mark.parametrize("type_", [type_ for type_, pin in PINS.items() if pin.package])
def test_a_pinned_version_is_one_its_package_speaks(type_: str) -> None:
    """So a pin cannot be a slip of the pen, and the names checked are those of that version or a later one."""
    pin = PINS[type_]
    folder = pin.package.rpartition(".")[2]
    dated = folder.startswith("v20") and folder == f"v{pin.version.replace('-', '_')}"

    assert arm.knows(pin.package, pin.class_name)
    assert dated or arm.mentions(pin.package, pin.version)


def test_every_pin_is_used() -> None:
    templates = [syntax.read(path) for path in INFRA.rglob("*.bicep")]
    used = {resource.reference.partition("@")[0] for template in templates for resource in template.of("resource")}

    assert set(PINS) == used
