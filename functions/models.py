"""`/v1/models` and `/v1/embeddings`."""

from typing import Any

import azure.functions as func
import orjson

from functions._edge import Call, edge, json_response, read_json
from functions._http import Request, Response
from functions._operations import Operation
from shared.errors import NotFound
from shared.turns.context import CHARS_PER_TOKEN
from shared.usage.service import reserved
from shared.wire.answers.models import EmbeddingList, Model, ModelList
from shared.wire.embeddings import CreateEmbedding

blueprint = func.Blueprint()


@blueprint.route("v1/models", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=ModelList, errors=(502, 504))
async def list_models(request: Request, call: Call) -> Response:
    """The models to choose from, the default first."""
    del request
    models: list[dict[str, Any]] = await call.app.models.models()
    return json_response({"object": "list", "data": models})


@blueprint.route("v1/models/{*model}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Model, errors=(502, 504))
async def retrieve_model(request: Request, call: Call) -> Response:
    """Names may contain slashes, as those of many compatible servers do."""
    name = request.path_params["model"]
    for model in await call.app.models.models():
        if model["id"] == name:
            return json_response(model)
    raise NotFound(f"The model {name!r} does not exist.", param="model", code="model_not_found")


@blueprint.route("v1/embeddings", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateEmbedding, answer=EmbeddingList, errors=(404, 502, 504))
async def create_embeddings(request: Request, call: Call) -> Response:
    """Texts as vectors; `encoding_format` says how the numbers are written."""
    body = await read_json(request, call.app.settings.http.max_body)
    CreateEmbedding.model_validate(body)  # and passed on as it came
    model = str(body.get("model") or "embeddings")
    tokens = len(orjson.dumps(body.get("input"))) // CHARS_PER_TOKEN + 1
    async with reserved(call.app, call.principal, model=model, tokens=tokens) as bill:
        answer = await call.app.embedder.embed(body)
        usage: Any = answer.get("usage") or {}
        bill.used(input_tokens=int(usage.get("prompt_tokens") or tokens))
    return json_response(answer, headers=bill.headers)
