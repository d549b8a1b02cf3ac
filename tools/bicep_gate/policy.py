"""The rules of this house, each a function with its reason in the docstring."""

import re
from collections.abc import Callable, Iterator

from tree_sitter import Node

from tools.bicep_gate.resources import type_of
from tools.bicep_gate.symbols import calls, references
from tools.bicep_gate.syntax import Declaration, Problem, Template, at, literal, members, text, walk

ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "516239f1-63e1-4d78-a4de-a74fb236a071": "App Configuration Data Reader",
    "00000000-0000-0000-0000-000000000002": "Cosmos DB Built-in Data Contributor",
}
"""The only roles that may be given, all of them on data, none on resources."""

MUST_BE: dict[str, dict[tuple[str, ...], str]] = {
    "Microsoft.AppConfiguration/configurationStores": {("properties", "disableLocalAuth"): "true"},
    "Microsoft.CognitiveServices/accounts": {("properties", "disableLocalAuth"): "true"},
    "Microsoft.DocumentDB/databaseAccounts": {
        ("properties", "disableLocalAuth"): "true",
        ("properties", "disableKeyBasedMetadataWriteAccess"): "true",
        ("properties", "minimalTlsVersion"): "'Tls12'",
        # Take-over of a turn rests on conditional writes, which several write regions would not keep apart.
        ("properties", "enableMultipleWriteLocations"): "false",
    },
    "Microsoft.Insights/components": {("properties", "DisableLocalAuth"): "true"},
    "Microsoft.OperationalInsights/workspaces": {("properties", "features", "disableLocalAuth"): "true"},
    "Microsoft.Storage/storageAccounts": {
        ("properties", "allowSharedKeyAccess"): "false",
        ("properties", "allowBlobPublicAccess"): "false",
        ("properties", "supportsHttpsTrafficOnly"): "true",
        ("properties", "minimumTlsVersion"): "'TLS1_2'",
    },
    "Microsoft.Web/serverfarms": {("sku", "name"): "'FC1'"},
    "Microsoft.Web/sites": {
        ("properties", "httpsOnly"): "true",
        ("properties", "siteConfig", "minTlsVersion"): "'1.2'",
        ("properties", "functionAppConfig", "siteUpdateStrategy", "type"): "'RollingUpdate'",
        ("properties", "functionAppConfig", "runtime", "version"): "'3.13'",
        ("properties", "functionAppConfig", "deployment", "storage", "type"): "'blobContainer'",
        ("properties", "functionAppConfig", "deployment", "storage", "authentication", "type"): (
            "'UserAssignedIdentity'"
        ),
    },
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {("properties", "allow"): "false"},
}

MUST_SAY: dict[str, tuple[tuple[str, ...], ...]] = {
    "Microsoft.Web/sites": (
        ("properties", "functionAppConfig", "scaleAndConcurrency", "instanceMemoryMB"),
        ("properties", "functionAppConfig", "scaleAndConcurrency", "maximumInstanceCount"),
        ("properties", "functionAppConfig", "scaleAndConcurrency", "alwaysReady"),
        # Python's default is one request per instance.
        ("properties", "functionAppConfig", "scaleAndConcurrency", "triggers", "http", "perInstanceConcurrency"),
    ),
}

NEEDS_DIAGNOSTICS = {
    "Microsoft.AppConfiguration/configurationStores": "Microsoft.AppConfiguration/configurationStores",
    "Microsoft.Cdn/profiles": "Microsoft.Cdn/profiles",
    "Microsoft.CognitiveServices/accounts": "Microsoft.CognitiveServices/accounts",
    "Microsoft.DocumentDB/databaseAccounts": "Microsoft.DocumentDB/databaseAccounts",
    "Microsoft.Storage/storageAccounts": "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Web/sites": "Microsoft.Web/sites",
}
"""Type to the type that its diagnostic settings hang on."""

NOT_ON_FLEX = re.compile(
    r"^(FUNCTIONS_WORKER_RUNTIME|FUNCTIONS_EXTENSION_VERSION|FUNCTIONS_WORKER_PROCESS_COUNT"
    r"|SCM_DO_BUILD_DURING_DEPLOYMENT|ENABLE_ORYX_BUILD|WEBSITE_RUN_FROM_PACKAGE|WEBSITE_.*CONTENT.*)$"
)

_GUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I)
_SECRET = re.compile(r"(secret|password|connectionstring|apikey|ownerkey)", re.I)
_PUBLIC = re.compile(r"insights", re.I)
"""Its connection string is an address, not a credential: with local auth off, it opens nothing."""


def problems(template: Template) -> Iterator[Problem]:
    for rule in _RULES:
        yield from rule(template)


def _resources(template: Template) -> Iterator[tuple[Declaration, str]]:
    for resource in template.of("resource"):
        if not resource.existing:
            yield resource, type_of(template, resource)


def _no_keys(template: Template) -> Iterator[Problem]:
    """Identities instead of keys: nothing may ask for one."""
    for node in walk(template.root):
        if node.type != "call_expression":
            continue
        function = node.child_by_field_name("function") or node
        name = text(function.named_children[-1] if function.type == "member_expression" else function)
        if re.match(r"list[A-Z]", name):
            yield template.problem(node, "keys", f"{name} reads a key; give the identity a role instead")


def _locked_down(template: Template) -> Iterator[Problem]:
    """Local authentication off, TLS on, public blobs off; written out, so that a review sees it."""
    for resource, type_ in _resources(template):
        for path, wanted in MUST_BE.get(type_, {}).items():
            value = at(resource.body, *path)
            if value is None or text(value) != wanted:
                yield template.problem(value or resource.node, "locked", f"{'.'.join(path)} must be {wanted}")


def _said(template: Template) -> Iterator[Problem]:
    """Values whose platform default is a trap are always set."""
    for resource, type_ in _resources(template):
        for path in MUST_SAY.get(type_, ()):
            if at(resource.body, *path) is None:
                yield template.problem(resource.node, "said", f"{'.'.join(path)} must be set")


def _roles(template: Template) -> Iterator[Problem]:
    """Only listed roles, on one resource, for a principal whose type is said (a new identity replicates slowly)."""
    for node in walk(template.root):
        if node.type != "string_content":
            continue
        for guid in _GUID.findall(text(node)):
            if guid.lower() not in ROLES:
                yield template.problem(node, "role", f"{guid} is not on the list of roles")
    for resource, type_ in _resources(template):
        if type_ == "Microsoft.Authorization/roleAssignments":
            yield from _assignment(template, resource)
        if type_ == "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments":
            yield from _data_assignment(template, resource)


def _assignment(template: Template, resource: Declaration) -> Iterator[Problem]:
    body = resource.body
    if at(body, "scope") is None:
        yield template.problem(resource.node, "role", f"{resource.name} holds for the whole group: give it a scope")
    if at(body, "properties", "principalType") is None:
        yield template.problem(resource.node, "role", f"{resource.name} must say its principalType")
    name = at(body, "name")
    if name is None or not text(name).startswith("guid("):
        yield template.problem(resource.node, "role", f"{resource.name} must be named by guid(…): stable, and unique")


def _data_assignment(template: Template, resource: Declaration) -> Iterator[Problem]:
    """Least privilege: data by container; over the whole account nothing but reading its metadata."""
    scope = at(resource.body, "properties", "scope")
    role = at(resource.body, "properties", "roleDefinitionId")
    if scope is None or role is None:
        return
    if "/colls/" not in text(scope) and "metadata" not in text(role).lower():
        yield template.problem(resource.node, "role", f"{resource.name} gives data beyond one container")


def _diagnostics(template: Template) -> Iterator[Problem]:
    """What holds data or answers requests reports to the workspace."""
    observed: set[str] = set()
    for resource, type_ in _resources(template):
        scope = at(resource.body, "scope")
        if type_ == "Microsoft.Insights/diagnosticSettings" and scope is not None:
            observed.add(text(scope).partition("[")[0])
    types = {resource.name: type_ for resource, type_ in _resources(template)}
    for resource, type_ in _resources(template):
        wanted = NEEDS_DIAGNOSTICS.get(type_)
        if wanted and not any(types.get(name) == wanted for name in observed):
            yield template.problem(resource.node, "diagnostics", f"{resource.name} has no diagnostic settings")


def _flex(template: Template) -> Iterator[Problem]:
    """Settings that Flex Consumption refuses."""
    for node in walk(template.root):
        if node.type != "object_property" or not node.named_children:
            continue
        key = node.named_children[0]
        name = literal(key) or text(key)
        if NOT_ON_FLEX.match(name):
            yield template.problem(node, "flex", f"{name} is not allowed on Flex Consumption")


def _secrets(template: Template) -> Iterator[Problem]:
    """A secret is a secure parameter, has no default, and is no output."""
    secure = {d.name for d in template.of("param") if "secure" in d.decorators}
    for param in template.of("param"):
        if _SECRET.search(param.name) and param.name not in secure and not _PUBLIC.search(param.name):
            yield template.problem(param.node, "secret", f"parameter {param.name!r} must be @secure()")
        if param.name in secure and param.body is not None and text(param.body) not in {"''", "{}"}:
            yield template.problem(param.node, "secret", f"secure parameter {param.name!r} must have no default")
    for output in template.of("output"):
        named = _SECRET.search(output.name) and not _PUBLIC.search(output.name)
        leaks = output.body is not None and any(name in secure for _, name in references(output.body))
        if named or leaks:
            yield template.problem(output.node, "secret", f"output {output.name!r} would be stored in the clear")


def _described(template: Template) -> Iterator[Problem]:
    """Every parameter says whether it is required and what it does."""
    for param in template.of("param"):
        call = param.decorators.get("description")
        arguments = call.child_by_field_name("arguments") if call else None
        said = literal(arguments.named_children[0]) if arguments and arguments.named_children else None
        start = "Optional." if param.body is not None or _nullable(param) else "Required."
        if not (said or "").startswith(start):
            yield template.problem(param.node, "described", f"{param.name!r} needs a description that begins {start!r}")


def _nullable(param: Declaration) -> bool:
    return any(child.type == "type" and text(child).endswith("?") for child in param.node.named_children)


def _tagged(template: Template) -> Iterator[Problem]:
    """Whatever takes a location takes tags: cost by environment is read from them."""
    for resource, _ in _resources(template):
        given = members(resource.body) if resource.body is not None else {}
        if "location" in given and "tags" not in given:
            yield template.problem(resource.node, "tags", f"{resource.name} must carry the tags")


def _pure(template: Template) -> Iterator[Problem]:
    """The same input gives the same template: the clock and chance only in a parameter's default."""
    for node, name, _ in calls(template):
        if name in {"utcNow", "newGuid"} and not _in_parameter(node):
            yield template.problem(node, "pure", f"{name} is allowed in a parameter's default only")


def _in_parameter(node: Node) -> bool:
    current: Node | None = node
    while current is not None and current.type != "parameter_declaration":
        current = current.parent
    return current is not None


_RULES: tuple[Callable[[Template], Iterator[Problem]], ...] = (
    _no_keys,
    _locked_down,
    _said,
    _roles,
    _diagnostics,
    _flex,
    _secrets,
    _described,
    _tagged,
    _pure,
)


def app_settings(template: Template) -> dict[str, Node]:
    """Name to value of every application setting the file sets: the entries of its variables named `…Settings`."""
    found: dict[str, Node] = {}
    for variable in template.of("var"):
        if variable.name.endswith("Settings") and variable.body is not None:
            for node in walk(variable.body):
                if node.type == "object":
                    found |= members(node)
    return found
