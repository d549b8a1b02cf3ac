"""Names: undefined, unused, unknown functions and decorators, module parameters and outputs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tree_sitter import Node

from tools.bicep_gate.syntax import Declaration, Problem, Template, literal, members, text, walk


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DECORATORS = _words(
    "allowed batchSize description discriminator export maxLength maxValue metadata minLength minValue onlyIfNotExists "
    "retryOn sealed secure waitUntil"
)

FUNCTIONS = _words(
    "any array base64 base64ToJson base64ToString bool cidrHost cidrSubnet concat contains coalesce dataUri "
    "dataUriToString dateTimeAdd dateTimeFromEpoch dateTimeToEpoch deployer deployment empty endsWith environment "
    "extensionResourceId fail filter first flatten format getSecret groupBy guid indexOf int intersection items join "
    "json last lastIndexOf length loadDirectoryFileInfo loadFileAsBase64 loadJsonContent loadTextContent "
    "loadYamlContent managementGroup managementGroupResourceId map mapValues max min newGuid nameof objectKeys padLeft "
    "parseCidr parseUri buildUri pickZones range readEnvironmentVariable reduce reference replace resourceGroup "
    "resourceId shallowMerge skip sort split startsWith string subscription subscriptionResourceId substring take "
    "tenant tenantResourceId toObject toLogicalZone toLogicalZones toLower toPhysicalZone toPhysicalZones toUpper trim "
    "tryGet tryIndexFromEnd union uniqueString uri uriComponent uriComponentToString utcNow"
)
"""Every function of Bicep but the `list…` family, which returns keys: the policy has its own word on those."""

NAMESPACES = frozenset({"az", "sys"})
_LOADERS = frozenset({"loadJsonContent", "loadTextContent", "loadYamlContent", "loadFileAsBase64"})


def problems(template: Template, templates: Mapping[Path, Template]) -> Iterator[Problem]:
    yield from _duplicates(template)
    yield from _references(template)
    yield from _unused(template)
    yield from _decorators(template)
    yield from _functions(template)
    yield from _imports(template, templates)
    for module in template.of("module"):
        yield from _module(template, module, templates)


def references(node: Node, scope: frozenset[str] = frozenset()) -> Iterator[tuple[Node, str]]:
    """Every identifier below a node that refers to something declared outside of it."""
    if node.type == "identifier":
        if text(node) not in scope:
            yield node, text(node)
        return
    for child, inner in _visible(node, scope):
        yield from references(child, inner)


def _visible(node: Node, scope: frozenset[str]) -> Iterator[tuple[Node, frozenset[str]]]:
    """The children that may hold references, each with the local names it sees."""
    children = [child for child in node.named_children if child.type != "comment"]
    match node.type:
        case "object_property" if len(children) == 2:
            if children[0].type == "string":
                yield children[0], scope  # '${name}': the name is computed
            yield children[1], scope
            return
        case "for_statement":
            scope = scope | _loop_names(node)
            children = [child for child in children if child.type != "for_loop_parameters"]
        case "arguments":
            # A lambda's body may be parsed as reaching beyond the lambda, so its names are seen by the whole call.
            scope = scope | {name for child in children for name in _lambda_names(child)}
        case "user_defined_function":
            scope = scope | {text(p.named_children[0]) for p in walk(node) if p.type == "parameter"}
            children = [child for child in children[1:] if child.type != "parameters"]
        case "call_expression" if children and children[0].type == "identifier":
            children = children[1:]
        case "lambda_expression":
            children = children[1:]
        case "decorator" | "decorators" | "primitive_type":
            return
        case "resource_expression":
            children = children[:1]
        case "resource_declaration" | "module_declaration" | "parameter_declaration" | "variable_declaration":
            children = children[1:]
        case "type_declaration" | "output_declaration" | "metadata_declaration" | "assert_statement":
            children = children[1:]
        case "import_functionality" | "target_scope_assignment" | "using_statement":
            return
        case _:
            pass
    for child in children:
        yield child, scope


def _loop_names(node: Node) -> frozenset[str]:
    names = {text(n) for n in walk(node) if n.type in {"loop_variable", "loop_enumerator"}}
    initializer = node.child_by_field_name("initializer")
    if initializer is not None and initializer.type == "identifier":
        names.add(text(initializer))
    return frozenset(names)


def _lambda_names(node: Node) -> Iterator[str]:
    for inner in walk(node):
        if inner.type == "lambda_expression":
            yield from (text(n) for n in walk(inner.named_children[0]) if n.type == "identifier")


def _duplicates(template: Template) -> Iterator[Problem]:
    seen: set[tuple[bool, str]] = set()
    for declaration in template.declarations:
        key = (declaration.kind == "output", declaration.name)
        if key in seen:
            yield template.problem(declaration.node, "duplicate", f"{declaration.name!r} is declared twice")
        seen.add(key)


def _references(template: Template) -> Iterator[Problem]:
    known = {declaration.name for declaration in template.declarations if declaration.kind != "output"} | NAMESPACES
    for node, name in references(template.root):
        if name not in known:
            yield template.problem(node, "undefined", f"{name!r} is not declared in this file")


def _unused(template: Template) -> Iterator[Problem]:
    used = {name for _, name in references(template.root)} | {name for _, name, _ in calls(template)}
    for declaration in template.of("param", "var", "import", "type", "func"):
        if declaration.name not in used and "export" not in declaration.decorators:
            yield template.problem(declaration.node, "unused", f"{declaration.kind} {declaration.name!r} is never read")
    for declaration in template.of("resource"):
        if declaration.existing and declaration.name not in used:
            yield template.problem(declaration.node, "unused", f"existing {declaration.name!r} is never read")


def _decorators(template: Template) -> Iterator[Problem]:
    for node in walk(template.root):
        if node.type != "decorator":
            continue
        call = node.named_children[0]
        name = text(call.child_by_field_name("function") or call).removeprefix("sys.")
        if name not in DECORATORS:
            yield template.problem(node, "decorator", f"Bicep has no decorator {name!r}")


def calls(template: Template) -> Iterator[tuple[Node, str, Node]]:
    """Every call outside of decorators: the node, the function's name, its arguments."""
    for node in walk(template.root):
        if node.type != "call_expression" or (node.parent is not None and node.parent.type == "decorator"):
            continue
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        if function is None or arguments is None:
            continue
        if function.type == "member_expression":
            namespace, name = function.named_children[0], function.named_children[-1]
            if text(namespace) not in NAMESPACES:
                continue  # a method of a resource: the policy looks at those
            yield node, text(name), arguments
        else:
            yield node, text(function), arguments


def _functions(template: Template) -> Iterator[Problem]:
    own = {declaration.name for declaration in template.of("func", "import")}
    for node, name, arguments in calls(template):
        if name not in FUNCTIONS and name not in own and not name.startswith("list"):
            yield template.problem(node, "function", f"Bicep has no function {name!r}")
        if name in _LOADERS:
            file = literal(arguments.named_children[0]) if arguments.named_children else None
            if file is None or not (template.path.parent / file).is_file():
                yield template.problem(node, "file", f"{file!r} is not a file beside this one")


def _imports(template: Template, templates: Mapping[Path, Template]) -> Iterator[Problem]:
    for node in template.root.named_children:
        if node.type != "import_functionality":
            continue
        path = literal(node.named_children[-1]) or ""
        target = _target(template, path, templates)
        if target is None:
            yield template.problem(node, "module", f"{path!r} is not a template here")
            continue
        exported = {d.name for d in target.declarations if "export" in d.decorators}
        wildcard = any(child.type == "*" for child in node.children)
        for name in () if wildcard else _imported(node):
            if name not in exported:
                yield template.problem(node, "undefined", f"{path} does not export {name!r}")


def _imported(node: Node) -> Iterator[str]:
    """The names asked of the other file: of `a as b`, a."""
    for index, child in enumerate(node.children):
        if child.type == "identifier" and node.children[index - 1].type != "as":
            yield text(child)


def _target(template: Template, path: str, templates: Mapping[Path, Template]) -> Template | None:
    wanted = (template.path.parent / path).resolve()
    return next((other for other in templates.values() if other.path.resolve() == wanted), None)


def _module(template: Template, module: Declaration, templates: Mapping[Path, Template]) -> Iterator[Problem]:
    if ":" in module.reference:
        yield template.problem(
            module.node, "module", f"{module.reference!r}: registry modules cannot be checked offline"
        )
        return
    target = _target(template, module.reference, templates)
    if target is None:
        yield template.problem(module.node, "module", f"{module.reference!r} is not a template here")
        return
    yield from _arguments(template, module, target)
    yield from _outputs(template, module, target)


def required(param: Declaration) -> bool:
    """Has neither a default nor a nullable type."""
    nullable = any(child.type == "type" and text(child).endswith("?") for child in param.node.named_children)
    return param.body is None and not nullable


def _arguments(template: Template, module: Declaration, target: Template) -> Iterator[Problem]:
    given = members(module.body).get("params") if module.body else None
    names = members(given) if given is not None and given.type == "object" else {}
    known = {param.name: param for param in target.of("param")}
    for name, value in names.items():
        if name not in known:
            yield template.problem(value, "module", f"{module.reference} has no parameter {name!r}")
    for param in known.values():
        if required(param) and param.name not in names:
            yield template.problem(module.node, "module", f"{module.name}: {param.name!r} is required and not given")


def _outputs(template: Template, module: Declaration, target: Template) -> Iterator[Problem]:
    known = {output.name for output in target.of("output")}
    for node in walk(template.root):
        if node.type != "member_expression":
            continue
        of, name = node.named_children[0], text(node.named_children[-1])
        if of.type != "member_expression" or text(of.named_children[-1]) != "outputs":
            continue
        owner = of.named_children[0]
        if owner.type == "subscript_expression":
            owner = owner.named_children[0]
        if text(owner) == module.name and name not in known:
            yield template.problem(node, "module", f"{module.reference} has no output {name!r}")
