"""The operator's routes, as they are written: `COMPANION_ROUTES`, a file, or `PUT /v1/admin/routes`; JSON or YAML.

deployments:
  main:   {endpoint: https://x.openai.azure.com, model: gpt-5-mini, prices: {input: 0.25, cached: 0.025, output: 2}}
  spare:  {endpoint: https://api.openai.com/v1, key: OPENAI_API_KEY, model: gpt-5-mini}
  next:   {endpoint: https://x.openai.azure.com, model: gpt-6-mini}
models:
  companion:
    chain: [main, spare]                        # or [{east: 3, west: 1}, spare]: weights within a step
    canary: {deployment: next, percent: 5}
aliases: {gpt-4o: companion}
"""

import hashlib
import os
import re
from datetime import date
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, TypeAdapter, ValidationError, model_validator

from shared.settings import SettingsError

type Json = dict[str, Any]

OFFLINE = "offline"
"""The endpoint of the model that needs no server."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_KEY")
_NO_KEYS = ("COMPANION_", "COSMOS_", "STORAGE_", "AzureWebJobs", "WEBSITE_", "IDENTITY_")
"""Who may write routes must not be able to have the host's other secrets sent to a server of their own."""

type Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PricesSchema(_Schema):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)


class CapabilitiesSchema(_Schema):
    vision: bool = True
    tools: bool = True
    reasoning: bool = True
    structured: bool = True
    prefix: bool = False
    """Knows `continue_final_message`, as vLLM and its kin do."""
    window: int | None = Field(None, ge=1024)


class LimitsSchema(_Schema):
    """What one host may ask of a deployment."""

    concurrency: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)


class DeploymentSchema(_Schema):
    """A place that serves a language model."""

    endpoint: str
    """URL up to and including `/v1`; an Azure OpenAI resource without a path; or `offline`."""
    model: Name
    """Its name there."""
    api: Literal["chat", "responses"] = "chat"
    key: str | None = None
    """Name of the environment variable that holds the key; without one, Azure is asked keyless."""
    prices: PricesSchema | None = None
    capabilities: CapabilitiesSchema = Field(default_factory=lambda: CapabilitiesSchema.model_validate({}))
    limits: LimitsSchema = Field(default_factory=lambda: LimitsSchema.model_validate({}))
    kind: Literal["paygo", "provisioned"] = "paygo"
    region: str = ""
    retires: date | None = None
    timeout: float | None = Field(None, gt=0)
    """Seconds one call may take."""
    first_token: float | None = Field(None, gt=0)
    """Seconds until its first token, before another try."""
    silence: float | None = Field(None, gt=0)
    """Seconds without a word in the middle of an answer, before it counts as cut."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.endpoint != OFFLINE:
            url = TypeAdapter(HttpUrl).validate_python(self.endpoint)
            if url.username or url.password or not (self.endpoint.isascii() and self.endpoint.isprintable()):
                raise ValueError("the endpoint must be a plain URL; `key` names the variable that holds a credential")
        if self.key is not None and (not _KEY.fullmatch(self.key) or self.key.startswith(_NO_KEYS)):
            raise ValueError(
                f"{self.key!r} is no variable of a model's key: its name must end in _KEY, and not be ours"
            )
        if self.key is not None and not (os.environ.get(self.key) or "").strip():
            raise ValueError(f"the environment variable {self.key!r}, which should hold its key, is not set")
        return self

    def digest(self) -> str:
        """Equal for what may share connections and evidence."""
        return hashlib.sha256(orjson.dumps(self.model_dump(mode="json"))).hexdigest()


class ShareSchema(_Schema):
    deployment: str
    percent: float = Field(ge=0, le=100)


class ModelSchema(_Schema):
    """What a model's name leads to."""

    chain: list[str | dict[str, float]] = Field(min_length=1)
    """Asked in this order; `{name: weight, …}` shares one place."""
    canary: ShareSchema | None = None
    shadow: ShareSchema | None = None
    window: int | None = Field(None, ge=1024)

    def names(self) -> list[str]:
        ranked = [name for step in self.chain for name in ([step] if isinstance(step, str) else step)]
        return [*ranked, *(share.deployment for share in (self.canary, self.shadow) if share)]


class RoutesSchema(_Schema):
    """All routes of this Companion."""

    deployments: dict[Name, DeploymentSchema] = Field(min_length=1)
    models: dict[Name, ModelSchema] = Field(min_length=1)
    aliases: dict[Name, str] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, model in self.models.items():
            for wanted in model.names():
                if wanted not in self.deployments:
                    raise ValueError(f"model {name!r} leads to {wanted!r}, which is none of the deployments")
            for step in model.chain:
                if isinstance(step, dict) and not (step and all(weight > 0 for weight in step.values())):
                    raise ValueError(f"the weights of model {name!r} must be greater than 0")
        for alias, model in self.aliases.items():
            if model not in self.models:
                raise ValueError(f"alias {alias!r} leads to {model!r}, which is none of the models")
            if alias in self.models:
                raise ValueError(f"{alias!r} is both a model and an alias")
        return self


class BadRoutes(SettingsError):
    """Routes that cannot be used; `place` is where the first mistake is, as `models.companion.chain`."""

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(message)
        self.place = place


def parse_routes(text: str, *, source: str = "COMPANION_ROUTES") -> RoutesSchema:
    """Routes from JSON or YAML.

    Raises:
        BadRoutes: it cannot be used; the message names the source and the place in it.
    """
    try:
        data: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        data = _yaml(text, source)
    try:
        return RoutesSchema.model_validate(data)
    except ValidationError as exc:
        places = [".".join(str(part) for part in error["loc"]) for error in exc.errors()]
        problems = [_problem(place, error["msg"]) for place, error in zip(places, exc.errors(), strict=True)]
        raise BadRoutes(f"{source} cannot be used: {'; '.join(problems[:5])}", places[0] or None) from None


def _problem(place: str, message: str) -> str:
    said = message.removeprefix("Value error, ").replace("a valid dictionary or instance of RoutesSchema", "an object")
    return f"{place}: {said}" if place else said


def _yaml(text: str, source: str) -> Any:
    import yaml  # noqa: PLC0415 - only where somebody writes YAML

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise BadRoutes(f"{source} is neither JSON nor YAML: {exc}") from None
    except RecursionError:
        raise BadRoutes(f"{source} is nested too deeply") from None
