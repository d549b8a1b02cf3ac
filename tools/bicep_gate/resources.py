"""Resource bodies: known types at pinned API versions, known property names, values an enum knows."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, cast

from tree_sitter import Node

from tools.bicep_gate import arm
from tools.bicep_gate.arm import Anything, Field, ListOf, MapOf, Object, Reference, Scalar, Shape
from tools.bicep_gate.syntax import Declaration, Problem, Template, line, literal, members, text


class Pin(NamedTuple):
    version: str
    package: str
    """Below azure.mgmt; empty: the class is one of `OWN`."""
    class_name: str


_WEB = "2025-05-01"
_COSMOS = "2026-03-15"
_STORAGE = "2025-08-01"
_AI = "2025-09-01"
_NETWORK = "2025-05-01"
_CDN = "2025-12-01"

PINS: dict[str, Pin] = {
    "Microsoft.AppConfiguration/configurationStores": Pin("2024-06-01", "appconfiguration", "ConfigurationStore"),
    "Microsoft.Authorization/locks": Pin("2020-05-01", "", "Lock"),
    "Microsoft.Authorization/roleAssignments": Pin(
        "2022-04-01", "authorization.v2022_04_01", "RoleAssignmentCreateParameters"
    ),
    "Microsoft.Cdn/profiles": Pin(_CDN, "cdn", "Profile"),
    "Microsoft.Cdn/profiles/afdEndpoints": Pin(_CDN, "cdn", "AFDEndpoint"),
    "Microsoft.Cdn/profiles/afdEndpoints/routes": Pin(_CDN, "cdn", "Route"),
    "Microsoft.Cdn/profiles/originGroups": Pin(_CDN, "cdn", "AFDOriginGroup"),
    "Microsoft.Cdn/profiles/originGroups/origins": Pin(_CDN, "cdn", "AFDOrigin"),
    "Microsoft.Cdn/profiles/ruleSets": Pin(_CDN, "cdn", "RuleSet"),
    "Microsoft.Cdn/profiles/ruleSets/rules": Pin(_CDN, "cdn", "Rule"),
    "Microsoft.Cdn/profiles/securityPolicies": Pin(_CDN, "cdn", "SecurityPolicy"),
    "Microsoft.CognitiveServices/accounts": Pin(_AI, "cognitiveservices", "Account"),
    "Microsoft.CognitiveServices/accounts/deployments": Pin(_AI, "cognitiveservices", "Deployment"),
    "Microsoft.CognitiveServices/accounts/raiPolicies": Pin(_AI, "cognitiveservices", "RaiPolicy"),
    "Microsoft.Consumption/budgets": Pin("2024-08-01", "consumption", "Budget"),
    "Microsoft.DocumentDB/databaseAccounts": Pin(_COSMOS, "cosmosdb", "DatabaseAccountCreateUpdateParameters"),
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases": Pin(_COSMOS, "cosmosdb", "SqlDatabaseCreateUpdateParameters"),
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers": Pin(
        _COSMOS, "cosmosdb", "SqlContainerCreateUpdateParameters"
    ),
    "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments": Pin(
        _COSMOS, "cosmosdb", "SqlRoleAssignmentCreateUpdateParameters"
    ),
    "Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions": Pin(
        _COSMOS, "cosmosdb", "SqlRoleDefinitionCreateUpdateParameters"
    ),
    "Microsoft.Insights/actionGroups": Pin("2023-01-01", "monitor", "ActionGroupResource"),
    "Microsoft.Insights/components": Pin(
        "2020-02-02", "applicationinsights.v2020_02_02", "ApplicationInsightsComponent"
    ),
    "Microsoft.Insights/diagnosticSettings": Pin("2021-05-01-preview", "", "DiagnosticSettings"),
    "Microsoft.Insights/metricAlerts": Pin("2018-03-01", "monitor", "MetricAlertResource"),
    "Microsoft.Insights/scheduledQueryRules": Pin("2023-12-01", "monitor", "ScheduledQueryRuleResource"),
    "Microsoft.Insights/workbooks": Pin("2023-06-01", "applicationinsights.v2023_06_01", "Workbook"),
    "Microsoft.ManagedIdentity/userAssignedIdentities": Pin("2024-11-30", "msi.v2024_11_30", "Identity"),
    "Microsoft.Network/FrontDoorWebApplicationFirewallPolicies": Pin(
        "2025-10-01", "frontdoor", "WebApplicationFirewallPolicy"
    ),
    "Microsoft.Network/natGateways": Pin(_NETWORK, "network", "NatGateway"),
    "Microsoft.Network/networkSecurityGroups": Pin(_NETWORK, "network", "NetworkSecurityGroup"),
    "Microsoft.Network/privateDnsZones": Pin("2024-06-01", "privatedns", "PrivateZone"),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": Pin("2024-06-01", "privatedns", "VirtualNetworkLink"),
    "Microsoft.Network/privateEndpoints": Pin(_NETWORK, "network", "PrivateEndpoint"),
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": Pin(_NETWORK, "network", "PrivateDnsZoneGroup"),
    "Microsoft.Network/publicIPAddresses": Pin(_NETWORK, "network", "PublicIPAddress"),
    "Microsoft.Network/virtualNetworks": Pin(_NETWORK, "network", "VirtualNetwork"),
    "Microsoft.OperationalInsights/workspaces": Pin("2025-07-01", "loganalytics", "Workspace"),
    "Microsoft.Resources/resourceGroups": Pin("2025-04-01", "resource.resources", "ResourceGroup"),
    "Microsoft.Storage/storageAccounts": Pin(_STORAGE, "storage", "StorageAccountCreateParameters"),
    "Microsoft.Storage/storageAccounts/blobServices": Pin(_STORAGE, "storage", "BlobServiceProperties"),
    "Microsoft.Storage/storageAccounts/blobServices/containers": Pin(_STORAGE, "storage", "BlobContainer"),
    "Microsoft.Storage/storageAccounts/queueServices": Pin(_STORAGE, "storage", "QueueServiceProperties"),
    "Microsoft.Storage/storageAccounts/queueServices/queues": Pin(_STORAGE, "storage", "StorageQueue"),
    "Microsoft.Web/serverfarms": Pin(_WEB, "web", "AppServicePlan"),
    "Microsoft.Web/sites": Pin(_WEB, "web", "Site"),
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": Pin(
        _WEB, "web", "CsmPublishingCredentialsPoliciesEntity"
    ),
    "Microsoft.Web/sites/config": Pin(_WEB, "web", "StringDictionary"),
}
"""Every resource type the templates may use, its one API version, and the class its body is checked against."""

_ON_OFF = Object({"category": Field(Scalar()), "categoryGroup": Field(Scalar()), "enabled": Field(Scalar(), True)})

OWN: dict[str, Object] = {
    "Lock": Object({"properties": Field(Object({"level": Field(Scalar(), True), "notes": Field(Scalar())}), True)}),
    "DiagnosticSettings": Object(
        {
            "properties": Field(
                Object(
                    {
                        "workspaceId": Field(Scalar()),
                        "logs": Field(ListOf(_ON_OFF)),
                        "metrics": Field(ListOf(_ON_OFF)),
                        "logAnalyticsDestinationType": Field(Scalar()),
                    }
                ),
                True,
            )
        }
    ),
}
"""The two types whose package is not worth installing for a handful of names."""

_OF_BICEP = frozenset({"name", "scope", "parent", "dependsOn"})


def problems(template: Template) -> Iterator[Problem]:
    for resource in template.of("resource"):
        yield from _resource(template, resource)


def type_of(template: Template, resource: Declaration) -> str:
    """The full type; a nested resource names only its last part."""
    own = resource.reference.partition("@")[0]
    parent = template.find(resource.parent) if resource.parent else None
    return f"{type_of(template, parent)}/{own}" if parent else own


def _resource(template: Template, resource: Declaration) -> Iterator[Problem]:
    full = type_of(template, resource)
    version = resource.reference.partition("@")[2]
    pin = PINS.get(full)
    if pin is None:
        yield template.problem(resource.node, "type", f"{full!r} is not in the table of resource types")
        return
    if version != pin.version and not (resource.parent and not version):
        yield template.problem(resource.node, "version", f"{full} is pinned to {pin.version}, not {version or 'none'}")
    if resource.existing or resource.body is None:
        return
    shape: Shape = Reference(pin.package, pin.class_name) if pin.package else OWN[pin.class_name]
    yield from _Checker(template).check(resource.body, shape, full.rpartition("/")[2], top=True)


class _Checker:
    """Compares values with shapes; follows variables, ternaries, loops and `union` to the objects in them."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._following: list[str] = []

    def check(self, node: Node, shape: Shape, where: str, *, top: bool = False) -> Iterator[Problem]:
        if isinstance(shape, Reference):
            shape = _expanded(shape)
        match node.type:
            case "object":
                yield from self._object(node, shape, where, top=top)
            case "array":
                yield from self._items(node, shape, where)
            case "string":
                yield from self._value(node, shape, where)
            case "ternary_expression":
                for part in node.named_children[1:]:
                    yield from self.check(part, shape, where)
            case "parenthesized_expression" | "if_statement":
                yield from self.check(node.named_children[-1], shape, where)
            case "for_statement":
                item = shape.item if isinstance(shape, ListOf) else shape
                yield from self.check(node.named_children[-1], item, where)
            case "call_expression":
                yield from self._call(node, shape, where)
            case "identifier":
                yield from self._variable(text(node), shape, where)
            case _:
                pass

    def _object(self, node: Node, shape: Shape, where: str, *, top: bool) -> Iterator[Problem]:
        if isinstance(shape, MapOf):
            for name, value in members(node).items():
                yield from self.check(value, shape.item, f"{where}.{name}")
            return
        if isinstance(shape, Scalar | ListOf):
            yield self._problem(node, "property", f"{where} is no object")
            return
        if not isinstance(shape, Object):
            return
        given = members(node)
        kind = next((r for (name, value), r in shape.kinds.items() if literal(given.get(name)) == value), None)
        if kind is not None:
            yield from self.check(node, kind, where, top=top)
            return
        for name, value in given.items():
            known = shape.fields.get(name)
            if top and name in _OF_BICEP:
                continue
            if known is None:
                yield self._problem(value, "property", f"{where} has no property {name!r}{_hint(name, shape)}")
            elif known.readonly:
                yield self._problem(value, "property", f"{where}.{name} is read-only")
            else:
                yield from self.check(value, known.shape, f"{where}.{name}")
        computed = any(child.type != "object_property" for child in node.named_children if child.type != "comment")
        for name, known in shape.fields.items():
            if known.required and name not in given and not computed and not (top and name in _OF_BICEP):
                yield self._problem(node, "property", f"{where} lacks the required property {name!r}")

    def _items(self, node: Node, shape: Shape, where: str) -> Iterator[Problem]:
        if isinstance(shape, Scalar | Object):
            yield self._problem(node, "property", f"{where} is no array")
        if isinstance(shape, ListOf):
            for child in node.named_children:
                yield from self.check(child, shape.item, where)

    def _value(self, node: Node, shape: Shape, where: str) -> Iterator[Problem]:
        value = literal(node)
        if isinstance(shape, Object | ListOf):
            yield self._problem(node, "property", f"{where} is no text")
        if isinstance(shape, Scalar) and shape.values and value is not None and value not in shape.values:
            yield self._problem(node, "value", f"{where} does not know {value!r}; it knows {_some(shape.values)}")

    def _call(self, node: Node, shape: Shape, where: str) -> Iterator[Problem]:
        function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if function is None or arguments is None or text(function) not in {"union", "concat", "shallowMerge"}:
            return
        partial = (
            Object({k: Field(f.shape, False, f.readonly) for k, f in shape.fields.items()})
            if (isinstance(shape, Object))
            else shape
        )
        for argument in arguments.named_children:
            yield from self.check(argument, partial, where)

    def _variable(self, name: str, shape: Shape, where: str) -> Iterator[Problem]:
        declaration = self._template.find(name)
        if declaration is None or declaration.kind != "var" or declaration.body is None or name in self._following:
            return
        self._following.append(name)
        yield from self.check(declaration.body, shape, where)
        self._following.pop()

    def _problem(self, node: Node, rule: str, message: str) -> Problem:
        return Problem(self._template.path, line(node), rule, message)


@cache
def _expanded(reference: Reference) -> Shape:
    expanded = arm.expand(reference)
    return expanded if expanded.fields else Anything()


def _hint(name: str, shape: Object) -> str:
    near = [known for known in shape.fields if known.lower() == name.lower()]
    return f"; it has {near[0]!r}" if near else ""


def _some(values: frozenset[str]) -> str:
    return ", ".join(sorted(values)[:12]) + (" …" if len(values) > 12 else "")


def json_problems(value: object, shape: Shape, where: str) -> Iterator[str]:
    """The same check for a value that a template loads from a JSON file: one sentence for each defect."""
    if isinstance(shape, Reference):
        shape = _expanded(shape)
    if isinstance(value, list):
        items = cast("list[object]", value)
        if isinstance(shape, ListOf):
            for item in items:
                yield from json_problems(item, shape.item, f"{where}[]")
        elif not isinstance(shape, Anything):
            yield f"{where} is no array"
    elif isinstance(value, dict):
        named = cast("dict[str, object]", value)
        if isinstance(shape, Object):
            for name, inner in named.items():
                known = shape.fields.get(name)
                if known is None or known.readonly:
                    yield f"{where} has no property {name!r} that can be set"
                else:
                    yield from json_problems(inner, known.shape, f"{where}.{name}")
            yield from (f"{where} lacks {n!r}" for n, f in shape.fields.items() if f.required and n not in named)
        elif not isinstance(shape, Anything | MapOf):
            yield f"{where} is no object"
    elif isinstance(shape, Scalar) and shape.values and str(value) not in shape.values:
        yield f"{where} does not know {value!r}"
