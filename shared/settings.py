"""Settings: environment variables, read once at start, frozen, in one small group per adapter.

`VARIABLES` is the one list of them: the documentation, the templates under infra/ and the tests read it. A variable
that is not in the list does not exist.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

DEFAULT_PORT = 7071


class Secret:
    """A string that does not print itself.

    >>> Secret("abc")
    Secret('**********')
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('**********')" if self._value else "Secret('')"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)

    def reveal(self) -> str:
        return self._value


_NO_SECRET = Secret("")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, its default as text, what it does, and whether it is secret."""

    name: str
    default: str
    help: str
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    # state
    Variable("COMPANION_DATA", ".data", "Folder of the SQLite file and the local blobs (no COSMOS_ENDPOINT)."),
    Variable("COSMOS_ENDPOINT", "", "Cosmos DB account; set: state lives there instead of in SQLite."),
    Variable("COSMOS_DATABASE", "companion", "Database inside the account."),
    Variable("COSMOS_KEY", "", "Account key, for emulators only; empty: managed identity.", secret=True),
    Variable("STORAGE_BLOB_ENDPOINT", "", "Blob service URL for large outputs; empty: a folder under COMPANION_DATA."),
    Variable("STORAGE_QUEUE_ENDPOINT", "", "Queue service URL for background work; empty: documents in the store."),
    Variable("STORAGE_CONNECTION_STRING", "", "Instead of the two URLs, for Azurite only.", secret=True),
    Variable("AZURE_CLIENT_ID", "", "Client id of the user-assigned managed identity; empty: the default chain."),
    # models
    Variable("OPENAI_BASE_URL", "", "Any OpenAI-compatible server, up to and including /v1."),
    Variable("OPENAI_API_KEY", "", "Key for that server; alone it means OpenAI itself.", secret=True),
    Variable("OPENAI_MODEL", "", "Which of its models `companion` is; empty: the first it lists."),
    Variable("OPENAI_API", "chat", "What it speaks: `chat` (chat/completions) or `responses`."),
    Variable("AZURE_OPENAI_ENDPOINT", "", "Azure OpenAI resource, https://NAME.openai.azure.com; keyless by default."),
    Variable("AZURE_OPENAI_API_KEY", "", "Key for it where keyless is not possible.", secret=True),
    Variable("COMPANION_MODEL_TIMEOUT", "600", "Seconds one model call may take."),
    Variable("COMPANION_CONTEXT_WINDOW", "128000", "Tokens a model can see, where nothing better is known."),
    Variable("COMPANION_OFFLINE_DELAY", "0.02", "Seconds the offline model takes for a word."),
    Variable("COMPANION_ROUTES", "", "Routes to deployments, as JSON or as the path of a JSON or YAML file."),
    Variable("COMPANION_ROUTES_REFRESH", "20", "Seconds between two looks for newer routes, in the file or the store."),
    Variable("COMPANION_CONCURRENCY", "512", "Turns that one host runs at a time, at most; more are refused with 503."),
    # turns
    Variable(
        "COMPANION_DELTA_INTERVAL",
        "0.1",
        "Seconds of deltas merged into one event, one append, one write; thrice while the processor is short.",
    ),
    Variable("COMPANION_LEASE", "1.5", "Seconds without a sign of life after which a turn may be taken over."),
    Variable("COMPANION_CONTEXT_TURNS", "40", "Newest turns read as history; older ones live on in the summary."),
    Variable("COMPANION_CONTEXT_TOKENS", "96000", "Most tokens of history sent to the model."),
    Variable(
        "COMPANION_BACKGROUND_SLOTS", "4", "Background turns of one owner that run at a time; others wait in line."
    ),
    Variable("COMPANION_TITLES", "on", "Make a title for each new conversation: `on` or `off`."),
    Variable(
        "COMPANION_SYSTEM_PROMPT",
        "off",
        "Companion's own instructions before those of a `companion…` call: `on`, `off`.",
    ),
    # flags
    Variable("COMPANION_FLAGS", "", "JSON file of feature flags, read again when it changes; empty: no flags."),
    Variable("AZURE_APPCONFIG_ENDPOINT", "", "Azure App Configuration store of the flags, instead of a file; keyless."),
    # safety
    Variable("COMPANION_GUARDRAILS", "", "Which guardrails check turns: some of `rules,openai,content_safety`."),
    Variable(
        "COMPANION_GUARDRAIL_ACTION", "mask", "What the rules do with what they find: `mask`, `block` or `flag` (log)."
    ),
    Variable("COMPANION_ALLOWED_HOSTS", "", "`host,*.host,…` that links and images in answers may carry data to."),
    Variable(
        "COMPANION_CONTENT_SAFETY", "", "URL of an Azure AI Content Safety resource, for `content_safety`; keyless."
    ),
    # callers
    Variable(
        "COMPANION_API_KEYS",
        "",
        "`key=owner,…`: static keys; set: others are refused, but for what signs in otherwise.",
        secret=True,
    ),
    Variable("COMPANION_LOCAL_OWNER", "", "Owner of calls without a key; the local server sets it on loopback."),
    Variable("COMPANION_OIDC_ISSUER", "", "Issuer of the tokens users sign in with, exactly as their `iss` says it."),
    Variable("COMPANION_OIDC_AUDIENCE", "", "The `aud` those tokens must have."),
    Variable("COMPANION_OIDC_JWKS", "", "Where the issuer's keys are; empty: where its discovery document says."),
    Variable("COMPANION_GUESTS", "off", "Let people try without signing in: `on` or `off`."),
    Variable("COMPANION_GUEST_SECRET", "", "Signs guest tokens; at least 32 characters.", secret=True),
    Variable(
        "COMPANION_PLATFORM_AUTH", "off", "`on`: App Service authentication stands in front and sets its headers."
    ),
    # limits
    Variable("COMPANION_PLANS", "", "JSON: plan to its limits; the rest is as built in (docs/reference/limits.md)."),
    Variable("COMPANION_PRICES", "", 'JSON: model (`*`: any other) to `{"input", "cached", "output"}` in USD per 1M.'),
    # data
    Variable("COMPANION_UNDO_DAYS", "7", "Days a deleted conversation can be restored before it is gone."),
    # http
    Variable("COMPANION_HTTP_EXTENSION", "starlette", "HTTP types: `starlette` (ours) or `fastapi` (Microsoft's)."),
    Variable("COMPANION_MAX_BODY", "26214400", "Bytes of a request body, at most."),
    Variable("COMPANION_HEARTBEAT", "15", "Seconds of silence on a stream before a comment line."),
    Variable("COMPANION_CORS_ORIGINS", "", "Origins, with commas between, whose pages may call from a browser."),
    # operation
    Variable(
        "COMPANION_OPERATORS", "", "Owners, with commas between them, who may use /v1/admin; the local owner may."
    ),
    Variable(
        "COMPANION_TELEMETRY", "off", "Where traces and metrics go: `off`, `otlp` (OTEL_EXPORTER_OTLP_*), `azure`."
    ),
    Variable(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "",
        "Of Application Insights, for COMPANION_TELEMETRY=azure.",
    ),
)

_DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    data: str
    cosmos_endpoint: str
    cosmos_database: str
    cosmos_key: Secret
    blob_endpoint: str
    queue_endpoint: str
    connection_string: Secret
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    base_url: str
    api_key: Secret
    model: str
    api: Literal["chat", "responses"]
    azure_endpoint: str
    azure_api_key: Secret
    client_id: str
    timeout: float
    context_window: int = 128_000
    offline_delay: float = 0.02
    routes: str = ""
    routes_refresh: float = 20.0
    concurrency: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    interval: float
    lease: float
    context_turns: int
    context_tokens: int
    background_slots: int
    titles: bool
    system_prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagSettings:
    path: str = ""
    endpoint: str = ""
    client_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetySettings:
    guardrails: tuple[str, ...] = ()
    action: Literal["mask", "block", "flag"] = "mask"
    allowed_hosts: tuple[str, ...] = ()
    content_safety: str = ""
    client_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSettings:
    api_keys: Mapping[str, str]
    """Static key to owner."""
    local_owner: str
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_jwks: str = ""
    guests: bool = False
    guest_secret: Secret = _NO_SECRET
    platform_auth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an owner may use; None: as much as there is."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrent_turns: float | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


_OPEN = Limits(requests_per_minute=100_000, tokens_per_minute=1_000_000_000)

PLANS: dict[str, Limits] = {
    "default": Limits(
        requests_per_minute=120, tokens_per_minute=1_000_000, concurrent_turns=16, usd_per_day=10, usd_per_month=100
    ),
    "guest": Limits(
        requests_per_minute=10, tokens_per_minute=60_000, concurrent_turns=2, usd_per_day=0.25, usd_per_month=1
    ),
    "static": _OPEN,
    "local": _OPEN,
}
"""Built in. `static` is of the operator's own keys, `local` of the local owner; both have no ceiling of money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSettings:
    plans: Mapping[str, Limits]
    """As set; see `limits_of`."""
    prices: Mapping[str, Mapping[str, float]]
    """Model to USD per million `input`, `cached` and `output` tokens; `*` stands for every other."""

    def limits_of(self, plan: str) -> Limits:
        """A plan's limits: as set, else as built in. Setting `default` limits the operator's static keys too."""
        if plan in self.plans:
            return self.plans[plan]
        if plan not in PLANS or (plan == "static" and "default" in self.plans):
            return self.plans.get("default", PLANS["default"])
        return PLANS[plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    undo_days: float = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    extension: Literal["starlette", "fastapi"]
    max_body: int
    heartbeat: float
    cors_origins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSettings:
    operators: frozenset[str] = frozenset()
    telemetry: Literal["off", "otlp", "azure"] = "off"
    connection_string: Secret = _NO_SECRET


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can set.

    >>> Settings.read({"OPENAI_API": "responses"}).model.api
    'responses'
    """

    storage: StorageSettings
    model: ModelSettings
    turn: TurnSettings
    caller: CallerSettings
    http: HttpSettings
    usage: UsageSettings = field(default_factory=lambda: UsageSettings(plans={}, prices={}))
    data: DataSettings = field(default_factory=DataSettings)
    flags: FlagSettings = FlagSettings()
    safety: SafetySettings = SafetySettings()
    operation: OperationSettings = OperationSettings()

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """From the environment.

        Raises:
            SettingsError: a value cannot be used; the message names its variable.
        """
        env = _Environment(os.environ if environ is None else environ)
        return cls(
            storage=StorageSettings(
                data=env.text("COMPANION_DATA"),
                cosmos_endpoint=env.text("COSMOS_ENDPOINT"),
                cosmos_database=env.text("COSMOS_DATABASE"),
                cosmos_key=env.secret("COSMOS_KEY"),
                blob_endpoint=env.text("STORAGE_BLOB_ENDPOINT"),
                queue_endpoint=env.text("STORAGE_QUEUE_ENDPOINT"),
                connection_string=env.secret("STORAGE_CONNECTION_STRING"),
                client_id=env.text("AZURE_CLIENT_ID"),
            ),
            model=ModelSettings(
                base_url=env.text("OPENAI_BASE_URL").rstrip("/"),
                api_key=env.secret("OPENAI_API_KEY"),
                model=env.text("OPENAI_MODEL"),
                api=env.choice("OPENAI_API", "chat", "responses"),
                azure_endpoint=env.text("AZURE_OPENAI_ENDPOINT").rstrip("/"),
                azure_api_key=env.secret("AZURE_OPENAI_API_KEY"),
                client_id=env.text("AZURE_CLIENT_ID"),
                timeout=env.number("COMPANION_MODEL_TIMEOUT", least=1),
                context_window=int(env.number("COMPANION_CONTEXT_WINDOW", least=1024)),
                offline_delay=env.number("COMPANION_OFFLINE_DELAY", least=0),
                routes=env.text("COMPANION_ROUTES"),
                routes_refresh=env.number("COMPANION_ROUTES_REFRESH", least=0.05),
                concurrency=int(env.number("COMPANION_CONCURRENCY", least=1)),
            ),
            turn=TurnSettings(
                interval=env.number("COMPANION_DELTA_INTERVAL", least=0),
                lease=env.number("COMPANION_LEASE", least=0.2),
                context_turns=int(env.number("COMPANION_CONTEXT_TURNS", least=1)),
                context_tokens=int(env.number("COMPANION_CONTEXT_TOKENS", least=256)),
                background_slots=int(env.number("COMPANION_BACKGROUND_SLOTS", least=1)),
                titles=env.choice("COMPANION_TITLES", "on", "off") == "on",
                system_prompt=env.choice("COMPANION_SYSTEM_PROMPT", "on", "off") == "on",
            ),
            caller=CallerSettings(
                api_keys=env.pairs("COMPANION_API_KEYS"),
                local_owner=env.text("COMPANION_LOCAL_OWNER"),
                oidc_issuer=env.text("COMPANION_OIDC_ISSUER"),
                oidc_audience=env.together("COMPANION_OIDC_AUDIENCE", "COMPANION_OIDC_ISSUER"),
                oidc_jwks=env.text("COMPANION_OIDC_JWKS"),
                guests=env.choice("COMPANION_GUESTS", "on", "off") == "on",
                guest_secret=env.long_secret("COMPANION_GUEST_SECRET", where="COMPANION_GUESTS"),
                platform_auth=env.choice("COMPANION_PLATFORM_AUTH", "on", "off") == "on",
            ),
            http=HttpSettings(
                extension=env.choice("COMPANION_HTTP_EXTENSION", "starlette", "fastapi"),
                max_body=int(env.number("COMPANION_MAX_BODY", least=1)),
                heartbeat=env.number("COMPANION_HEARTBEAT", least=0.05),
                cors_origins=frozenset(env.names("COMPANION_CORS_ORIGINS")),
            ),
            operation=OperationSettings(
                operators=frozenset(
                    filter(None, (part.strip() for part in env.text("COMPANION_OPERATORS").split(",")))
                ),
                telemetry=env.choice("COMPANION_TELEMETRY", "off", "otlp", "azure"),
                connection_string=env.secret("APPLICATIONINSIGHTS_CONNECTION_STRING"),
            ),
            usage=UsageSettings(plans=env.plans("COMPANION_PLANS"), prices=env.prices("COMPANION_PRICES")),
            data=DataSettings(undo_days=env.number("COMPANION_UNDO_DAYS", least=0)),
            flags=FlagSettings(
                path=env.text("COMPANION_FLAGS"),
                endpoint=env.text("AZURE_APPCONFIG_ENDPOINT").rstrip("/"),
                client_id=env.text("AZURE_CLIENT_ID"),
            ),
            safety=SafetySettings(
                guardrails=env.names("COMPANION_GUARDRAILS", "rules", "openai", "content_safety"),
                action=env.choice("COMPANION_GUARDRAIL_ACTION", "mask", "block", "flag"),
                allowed_hosts=env.names("COMPANION_ALLOWED_HOSTS"),
                content_safety=env.text("COMPANION_CONTENT_SAFETY").rstrip("/"),
                client_id=env.text("AZURE_CLIENT_ID"),
            ),
        )


class _Environment:
    """Typed access to variables; every complaint names the variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        return (self._environ.get(name) or _DEFAULTS[name]).strip()

    def secret(self, name: str) -> Secret:
        return Secret(self.text(name))

    def number(self, name: str, *, least: float) -> float:
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            raise SettingsError(f"{name} must be a number, not {text!r}") from None
        if value < least:
            raise SettingsError(f"{name} must be at least {least}, not {text!r}")
        return value

    def choice[T: str](self, name: str, *choices: T) -> T:
        text = self.text(name)
        for choice in choices:
            if choice == text:
                return choice
        raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {text!r}")

    def names(self, name: str, *choices: str) -> tuple[str, ...]:
        """Words with commas between them; of these choices, where there are some."""
        names = tuple(filter(None, (word.strip().lower() for word in self.text(name).split(","))))
        unknown = [word for word in names if choices and word not in choices]
        if unknown:
            raise SettingsError(f"{name} must be some of {', '.join(choices)}, not {unknown[0]!r}")
        return names

    def pairs(self, name: str) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in self.text(name).split(","))):
            key, equals, value = part.rpartition("=")
            if not (equals and key and value):
                raise SettingsError(f"{name} must be key=owner pairs with commas between them")
            pairs[key] = value
        return pairs

    def together(self, name: str, other: str) -> str:
        """Text that means nothing without another variable, nor that one without it."""
        if bool(self.text(name)) != bool(self.text(other)):
            raise SettingsError(f"{name} and {other} must be set together")
        return self.text(name)

    def long_secret(self, name: str, *, where: str) -> Secret:
        """A secret that must be long wherever the switch `where` is on."""
        if self.text(where) == "on" and len(self.text(name)) < 32:
            raise SettingsError(f"{name} must have at least 32 characters where {where} is on")
        return self.secret(name)

    def plans(self, name: str) -> dict[str, Limits]:
        known = Limits.__dataclass_fields__
        plans: dict[str, Limits] = {}
        for plan, values in self._numbers(name, known, is_nullable=True).items():
            built_in = PLANS.get(plan, PLANS["default"])
            plans[plan] = Limits(**{key: values.get(key, getattr(built_in, key)) for key in known})
        return plans

    def prices(self, name: str) -> dict[str, dict[str, float]]:
        found = self._numbers(name, ("input", "cached", "output"), is_nullable=False)
        return {model: {key: value or 0.0 for key, value in values.items()} for model, values in found.items()}

    def _numbers(self, name: str, keys: Any, *, is_nullable: bool) -> dict[str, dict[str, float | None]]:
        """`{"name": {"key": number, …}, …}` as JSON, no number below zero."""
        text = self.text(name)
        if not text:
            return {}
        complaint = SettingsError(
            f'{name} must be JSON such as {{"name": {{"{next(iter(keys))}": 1}}}}; known are {", ".join(keys)}'
        )
        try:
            table: object = json.loads(text)
        except ValueError:
            raise complaint from None
        if not isinstance(table, dict):
            raise complaint
        for row in cast(dict[str, object], table).values():
            if not isinstance(row, dict):
                raise complaint
            for key, value in cast(dict[str, object], row).items():
                is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
                if key not in keys or not (is_number or (is_nullable and value is None)):
                    raise complaint
        return cast(dict[str, dict[str, float | None]], table)
