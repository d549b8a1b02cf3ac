"""The layers of the house, as one table. A failure prints the sentence to read."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Layer(NamedTuple):
    name: str
    modules: tuple[str, ...]
    """Module names; one that ends in a dot stands for everything inside."""


# Highest first; imports point down, or stay in the layer. Where several patterns fit, the longest decides.
LAYERS = (
    Layer("local host", ("localhost.",)),
    Layer("edges", ("function_app", "functions.")),
    Layer("composition", ("shared.bootstrap",)),
    Layer("turns, jobs and services", ("shared.turns.", "shared.jobs.", "shared.*.service")),
    Layer("app", ("shared.app", "shared.turns.live", "shared.turns.events")),  # App holds the turns that run here
    Layer("wire", ("shared.wire.",)),
    Layer("features and adapters", ("shared.*.",)),
    Layer("ports", ("shared.*.base",)),
    Layer("foundation", ("shared.", "shared.telemetry.")),
)
ORDER = [layer.name for layer in LAYERS]

# Vendor package: the only places that may import it. The longest prefix that fits decides.
VENDORS = {
    "azure.functions": ("functions.", "function_app", "localhost."),
    "azurefunctions": ("functions.",),
    "azure_functions_runtime": ("localhost.",),
    "starlette": ("functions.", "localhost."),
    "azure.cosmos": ("shared.storage.cosmos", "shared.storage.cosmos_emulator"),
    "azure.storage.blob": ("shared.storage.blob",),
    "openai": ("shared.models.", "shared.safety."),
    "opentelemetry": ("shared.telemetry.export",),
    "openai.types": ("shared.models.", "shared.safety.", "shared.wire.", "shared.turns."),
}

# What only bootstrap may name; files of the same folder may share code with each other.
ADAPTERS = (
    "shared.storage.sqlite",
    "shared.storage.cosmos",
    "shared.storage.cosmos_emulator",
    "shared.storage.folder",
    "shared.storage.blob",
    "shared.models.offline",
    "shared.models.openai",
    "shared.models.scripted",
)


def fits(module: str, pattern: str) -> bool:
    """
    >>> fits("shared.storage.base", "shared.*.base"), fits("shared.storage.sqlite", "shared.*.")
    (True, True)
    """
    parts, wanted = module.split("."), pattern.rstrip(".").split(".")
    if pattern.endswith("."):
        parts = parts[: len(wanted)] if len(parts) > len(wanted) or "*" not in wanted else []
    return len(parts) == len(wanted) and all(w in ("*", p) for p, w in zip(parts, wanted, strict=True))


def layer_of(module: str) -> str | None:
    """The layer's name; None for what is not of this house."""
    fitting = [(len(pattern), layer.name) for layer in LAYERS for pattern in layer.modules if fits(module, pattern)]
    return max(fitting)[1] if fitting else None


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module that the source imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            yield base
            # `from shared.storage import cosmos` names a module, `from shared.errors import NotFound` does not.
            if not (ROOT / base.replace(".", "/")).with_suffix(".py").exists():
                yield from (f"{base}.{alias.name}" for alias in node.names)


def under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def complaints(module: str, imported: str) -> Iterator[str]:
    """Why this import may not be, as sentences."""
    here, there = layer_of(module), layer_of(imported)
    if here and there and ORDER.index(there) < ORDER.index(here):
        yield f"{module} ({here}) imports {imported} ({there}): imports point down only; pass the function in."
    vendor = max((name for name in VENDORS if under(imported, name)), key=len, default=None)
    if vendor and not any(fits(module, place) for place in VENDORS[vendor]):
        places = ", ".join(place.rstrip(".") for place in VENDORS[vendor])
        yield f"{module} imports {imported}: {vendor} lives in {places} only; import a port instead."
    adapter = next((name for name in ADAPTERS if under(imported, name)), None)
    is_neighbour = adapter is not None and module.rpartition(".")[0] == adapter.rpartition(".")[0]
    if adapter and module != "shared.bootstrap" and not is_neighbour:
        yield f"{module} imports {imported}: only shared.bootstrap names an adapter; take the port as an argument."


def sources() -> Iterator[tuple[str, str, bool]]:
    files = [ROOT / "function_app.py"]
    files += [path for folder in ("functions", "localhost", "shared") for path in (ROOT / folder).rglob("*.py")]
    for path in sorted(filter(Path.exists, files)):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), path.read_text(), is_package


def test_every_import_keeps_to_the_layers() -> None:
    found = {
        sentence
        for module, source, is_package in sources()
        for imported in imports_of(module, source, is_package=is_package)
        for sentence in complaints(module, imported)
    }

    assert not found, "\n" + "\n".join(sorted(found))


def test_the_house_is_looked_at() -> None:
    modules = {module for module, _, _ in sources()}

    assert {"shared.storage.base", "shared.errors", "functions"} <= modules


def test_each_rule_catches_its_breach() -> None:
    breaches = {
        ("shared.errors", "shared.storage.base"): "point down",
        ("shared.storage.base", "shared.storage.rules"): "point down",
        ("shared.usage.meter", "shared.app"): "point down",
        ("shared.turns.run", "functions._sse"): "point down",
        ("functions.responses", "localhost.server"): "point down",
        ("shared.turns.run", "azure.functions"): "azure.functions lives in",
        ("shared.models.router", "azure.cosmos.aio"): "azure.cosmos lives in",
        ("shared.wire.responses", "openai"): "openai lives in",
        ("shared.usage.meter", "openai.types.responses"): "openai.types lives in",
        ("shared.usage.meter", "shared.storage.sqlite"): "only shared.bootstrap",
        ("functions.responses", "shared.models.scripted"): "only shared.bootstrap",
    }

    for (module, imported), sentence in breaches.items():
        assert any(sentence in found for found in complaints(module, imported)), (module, imported)


def test_what_the_layers_allow_passes() -> None:
    allowed = [
        ("functions.responses", "shared.turns.run"),
        ("shared.bootstrap", "shared.storage.cosmos"),
        ("shared.storage.cosmos", "azure.cosmos.aio"),
        ("shared.storage.cosmos", "shared.storage.rules"),
        ("shared.turns.run", "shared.app"),
        ("shared.app", "shared.models.base"),
        ("shared.wire.responses", "openai.types.responses"),
        ("localhost.server", "functions"),
    ]

    assert not [sentence for pair in allowed for sentence in complaints(*pair)]


def test_relative_and_lazy_imports_are_seen() -> None:
    source = "def f():\n    from ..storage import cosmos\n    from . import base\n"

    found = set(imports_of("shared.usage.meter", source))

    assert {"shared.storage.cosmos", "shared.usage.base"} <= found
