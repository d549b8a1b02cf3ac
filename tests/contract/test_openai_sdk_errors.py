"""Wire conformance: errors, request ids, and the truth of every parameter that the SDK documents."""

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import httpx
import openai
import pytest
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from openai.types.conversations import conversation_create_params, conversation_update_params, item_create_params
from openai.types.responses import (
    input_token_count_params,
    response_compact_params,
    response_create_params,
    response_input_param,
)

from functions.conversations import CreateConversation, CreateItems, UpdateConversation
from shared.wire.chat import UNSUPPORTED as CHAT_UNSUPPORTED
from shared.wire.chat import CreateChatCompletion
from shared.wire.embeddings import CreateEmbedding
from shared.wire.items import PREFIXES, Schema
from shared.wire.responses import UNSUPPORTED, CountInput, CreateResponse
from tests.contract.sdk import KEY, MODEL, TIME, WEATHER, Json, Server, error_of, message, of_type, output, text_of, the
from tests.processes import companion, upstream
from tests.upstream import KEY as UPSTREAM_KEY

SERVER_TOOLS: Json = {"type": "mcp", "server_label": "companion", "require_approval": "never"}


class TestErrors:
    """The table of PROTOCOL.md 2.6."""

    @pytest.mark.parametrize(
        ("fields", "code", "param"),
        [
            ({"model": "unheard-of"}, "model_not_found", "model"),
            ({"previous_response_id": "resp_nothing"}, "previous_response_not_found", "previous_response_id"),
            ({"conversation": "thread_1"}, "invalid_value", "conversation"),
            ({"temperature": "warm"}, "invalid_type", "temperature"),
            ({"temperature": 3}, "decimal_above_max_value", "temperature"),
            ({"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
            ({"max_output_tokens": 1.5}, "invalid_type", "max_output_tokens"),
            ({"stream": "yes"}, "invalid_type", "stream"),
            ({"truncation": "sometimes"}, "invalid_value", "truncation"),
            ({"service_tier": "gold"}, "invalid_value", "service_tier"),
            ({"include": ["everything"]}, "invalid_value", "include[0]"),
            ({"input": 5}, "invalid_type", "input"),
            ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
            ({"input": [{"role": "wizard", "content": "x"}]}, "invalid_value", "input[0].role"),
            ({"input": [{"type": "unheard_of"}]}, "invalid_value", "input[0].type"),
            ({"input": ["x"]}, "invalid_type", "input[0]"),
            (
                {"input": [{"role": "user", "content": [{"type": "video"}]}]},
                "invalid_value",
                "input[0].content[0].type",
            ),
            ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
            ({"tools": [{"type": "unheard_of"}]}, "invalid_value", "tools[0].type"),
            ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.name"),
            ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
            ({"reasoning": {"effort": "most"}}, "invalid_value", "reasoning.effort"),
            ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
        ],
    )
    def test_what_is_wrong_is_named(self, server: Server, fields: Json, code: str, param: str) -> None:
        error = server.error("POST", "/responses", {"model": MODEL, "input": "Hi", **fields}, status=400)

        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"5", b"null", b'{"input": "\xff"}', b"[" * 500])
    def test_a_body_that_is_no_object(self, server: Server, body: bytes) -> None:
        for path in ("/responses", "/conversations", "/chat/completions", "/embeddings"):
            assert server.error("POST", path, body, status=400)["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        ("method", "path", "names"),
        [
            ("GET", "/responses/resp_nothing", "resp_nothing"),
            ("DELETE", "/responses/resp_nothing", "resp_nothing"),
            ("POST", "/responses/resp_nothing/cancel", "resp_nothing"),
            ("GET", "/responses/resp_nothing/input_items", "resp_nothing"),
            ("GET", "/conversations/conv_nothing", "conv_nothing"),
            ("GET", "/chat/completions/chatcmpl-nothing", "chatcmpl-nothing"),
            ("GET", "/models/nothing", "nothing"),
        ],
    )
    def test_what_is_not_there_is_named(self, server: Server, method: str, path: str, names: str) -> None:
        assert names in server.error(method, path, status=404)["message"]

    def test_an_unknown_model_by_surface(self, server: Server) -> None:
        body = {"model": "unheard-of", "messages": [message("Hi")]}

        assert server.refused("Hi", model="unheard-of")["code"] == "model_not_found"
        assert server.error("POST", "/chat/completions", body, status=404)["code"] == "model_not_found"

    @pytest.mark.parametrize(
        ("command", "status", "kind"),
        [
            ("fail 400", 400, openai.BadRequestError),
            ("fail 429", 429, openai.RateLimitError),
            ("fail 500", 502, openai.InternalServerError),
            ("fail 503", 503, openai.InternalServerError),
            ("fail timeout", 504, openai.InternalServerError),
        ],
    )
    def test_a_model_that_fails(
        self, server: Server, command: str, status: int, kind: type[openai.APIStatusError]
    ) -> None:
        with server.client() as client, pytest.raises(kind) as caught:
            client.responses.create(model=MODEL, input=command)

        assert caught.value.status_code == status
        assert caught.value.request_id is not None

    @pytest.mark.parametrize("key", [None, "wrong"])
    def test_a_key_that_is_not_known(self, server: Server, key: str | None) -> None:
        for method, path in (("GET", "/models"), ("POST", "/responses"), ("GET", "/conversations/conv_1")):
            body = {"model": MODEL, "input": "Hi"} if method == "POST" else None
            error = server.error(method, path, body, status=401, key=key)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")

    def test_an_unknown_route_and_a_wrong_method(self, server: Server) -> None:
        server.error("GET", "/nowhere", status=404)
        refusal = server.send("PUT", "/responses", {})

        error_of(refusal, 405)
        assert "POST" in refusal.headers["allow"]

    def test_every_answer_has_a_request_id(self, server: Server) -> None:
        answers = [
            server.send("GET", "/models"),
            server.send("POST", "/responses", {"model": MODEL, "input": "Hi"}),
            server.send("POST", "/responses", {"model": MODEL, "input": "Hi", "stream": True}),
            server.send("POST", "/responses", b"{"),
            server.send("GET", "/nowhere"),
            server.send("GET", "/models", key=None),
            httpx.get(f"{server.url.removesuffix('/v1')}/healthz"),
        ]
        ids = [answer.headers["x-request-id"] for answer in answers]

        assert all(id_.startswith("req_") for id_ in ids)
        assert len(set(ids)) == len(ids)

    def test_the_sdk_shows_the_request_id(self, server: Server) -> None:
        with server.client() as client:
            response = client.responses.create(model=MODEL, input="Hi")

        assert (response._request_id or "").startswith("req_")  # pyright: ignore[reportPrivateUsage] - its public way

    def test_a_clients_request_id_is_not_taken_over(self, server: Server) -> None:
        assert server.send("GET", "/models", headers={"x-request-id": "mine"}).headers["x-request-id"] != "mine"

    def test_unknown_fields_and_headers_are_ignored(self, server: Server) -> None:
        given = [{**message("Hi"), "unheard_of": 1}]
        headers = {"openai-organization": "org", "openai-project": "p", "openai-beta": "x", "x-stainless-lang": "y"}
        body = {"model": MODEL, "input": given, "unheard_of": {"a": [1]}}

        assert server.send("POST", "/responses", body, headers=headers).status_code == 200


def names_of(params: Any) -> set[str]:
    """The parameters of a TypedDict of the SDK."""
    return set(get_type_hints(params))


class TestEveryParameterIsKnown:
    """What the SDK can send, we have or refuse; a new version of it may fail this."""

    @pytest.mark.parametrize(
        ("params", "schema"),
        [
            (response_create_params.ResponseCreateParamsStreaming, CreateResponse),
            (input_token_count_params.InputTokenCountParams, CountInput),
            (response_compact_params.ResponseCompactParams, CreateResponse),
            (completion_create_params.CompletionCreateParamsStreaming, CreateChatCompletion),
            (embedding_create_params.EmbeddingCreateParams, CreateEmbedding),
            (conversation_create_params.ConversationCreateParams, CreateConversation),
            (conversation_update_params.ConversationUpdateParams, UpdateConversation),
            (item_create_params.ItemCreateParams, CreateItems),
        ],
    )
    def test_of_each_request(self, params: Any, schema: type[Schema]) -> None:
        in_the_query = {"include"} if schema is CreateItems else set[str]()

        assert names_of(params) - set(schema.model_fields) - in_the_query == set()

    def test_what_is_not_offered_is_refused_by_name(self, server: Server) -> None:
        for name in set(UNSUPPORTED) - {"personality"}:
            error = server.error("POST", "/responses", {"model": MODEL, "input": "Hi", name: {}}, status=400)
            assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        for name in CHAT_UNSUPPORTED:
            body: Json = {"model": MODEL, "messages": [message("Hi")], name: {}}
            assert server.error("POST", "/chat/completions", body, status=400)["param"] == name
        body = {"model": MODEL, "input": "Hi", "personality": "friendly"}
        assert server.error("POST", "/responses/input_tokens", body, status=400)["param"] == "personality"

    def test_items_that_are_not_offered_are_refused_by_name(self, server: Server) -> None:
        """Of the item types the SDK can send, every one is stored or refused."""
        union: Any = response_input_param.ResponseInputItemParam
        known = {kind for each in union.__args__ for kind in _types(each)}

        assert PREFIXES.keys() <= known
        for kind in known - PREFIXES.keys() - {"item_reference"}:
            error = server.refused([{"type": kind}])
            assert (error["param"], error["code"]) == ("input[0].type", "invalid_value"), kind

    def test_tools_that_are_not_offered_are_refused_by_name(self, server: Server) -> None:
        for kind in ("file_search", "web_search", "code_interpreter", "image_generation", "computer_use_preview"):
            assert server.refused("Hi", tools=[{"type": kind}])["param"] == "tools[0].type"


def _types(params: Any) -> set[str]:
    """The values its `type` may have."""
    return _words(get_type_hints(params).get("type"))


def _words(hint: Any) -> set[str]:
    return {hint} if isinstance(hint, str) else {word for part in get_args(hint) for word in _words(part)}


class TestParameters:
    """Each does what it says."""

    def test_metadata_is_kept(self, server: Server) -> None:
        created = server.create("Hi", metadata={"a" * 64: "x" * 512})

        assert server.get(f"/responses/{created['id']}")["metadata"] == {"a" * 64: "x" * 512}

    def test_instructions_reach_the_model(self, server: Server) -> None:
        assert text_of(server.create("What are your instructions?", instructions="Be kind.")).endswith("Be kind.")

    def test_the_answer_keeps_to_its_limit(self, server: Server) -> None:
        assert server.create("write 100 words", max_output_tokens=20)["usage"]["output_tokens"] <= 20

    def test_tool_calls_of_the_server_keep_to_their_limit(self, server: Server) -> None:
        response = server.create("call current_time {}\ncall current_time {}", tools=[SERVER_TOOLS], max_tool_calls=1)

        assert [item["status"] for item in of_type(response, "mcp_call")] == ["completed", "failed"]

    @pytest.mark.parametrize(
        ("choice", "kinds"),
        [
            ("auto", ["message"]),
            ("none", ["message"]),
            ("required", ["function_call"]),
            ({"type": "function", "name": "time"}, ["function_call"]),
            (
                {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]},
                ["function_call"],
            ),
            ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]}, ["message"]),
        ],
    )
    def test_a_tool_choice(self, server: Server, choice: object, kinds: list[str]) -> None:
        response = server.create("Hello", tools=[TIME, WEATHER], tool_choice=choice)

        assert [item["type"] for item in response["output"]] == kinds

    def test_a_tool_that_is_not_allowed_is_not_called(self, server: Server) -> None:
        choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]}
        response = server.create("call weather {}", tools=[TIME, WEATHER], tool_choice=choice)

        assert of_type(response, "function_call") == []

    def test_a_tool_of_the_server_is_chosen_once(self, server: Server) -> None:
        choice = {"type": "mcp", "server_label": "companion", "name": "current_time"}
        response = server.create("Hello", tools=[SERVER_TOOLS], tool_choice=choice)

        assert [item["type"] for item in response["output"]] == ["mcp_call", "message"]
        assert response["tool_choice"] == choice

    def test_only_tools_that_are_allowed_run_on_the_server(self, server: Server) -> None:
        narrowed: list[Any] = [[], {"tool_names": ["other"]}]
        for allowed in narrowed:
            response = server.create("call current_time {}", tools=[{**SERVER_TOOLS, "allowed_tools": allowed}])
            assert of_type(response, "mcp_call") == []

    def test_logprobs_come_with_as_many_alternatives(self, server: Server) -> None:
        include = ["message.output_text.logprobs"]
        (part,) = the(server.create("Hi", include=include, top_logprobs=1), "message")["content"]
        (plain,) = the(server.create("Hi"), "message")["content"]

        assert all(len(token["top_logprobs"]) == 1 for token in part["logprobs"])
        assert "".join(token["token"] for token in part["logprobs"]) == part["text"]
        assert plain["logprobs"] == []

    def test_a_stored_response_is_stored_unless_told_otherwise(self, server: Server) -> None:
        for store, status in ((None, 200), (True, 200), (False, 404)):
            id_ = server.create("Hi", store=store)["id"]
            assert server.send("GET", f"/responses/{id_}").status_code == status

    def test_obfuscation_is_refused_and_its_absence_accepted(self, server: Server) -> None:
        assert server.refused("Hi", stream=True, stream_options={"include_obfuscation": True})["param"] == (
            "stream_options.include_obfuscation"
        )
        assert server.stream("Hi", stream_options={"include_obfuscation": False})
        id_ = server.create("Hi")["id"]
        params = {"stream": "true", "include_obfuscation": "true"}
        assert server.error("GET", f"/responses/{id_}", status=400, params=params)["param"] == "include_obfuscation"

    def test_a_text_format_shapes_the_answer(self, server: Server) -> None:
        answer = text_of(server.create("Hi", text={"format": {"type": "json_object"}}))

        assert answer.startswith("{")

    def test_a_schema_that_is_none(self, server: Server) -> None:
        """Whatever is wrong with a schema, it is the caller's mistake, not ours."""
        for schema in (
            {"type": 5},
            {"$ref": "#/nowhere"},
            {"enum": 5},
            {"properties": [1]},
            {"type": "object", "properties": {"a": 5}},
        ):
            format_ = {"type": "json_schema", "name": "x", "schema": schema}
            response = server.send("POST", "/responses", {"model": MODEL, "input": "Hi", "text": {"format": format_}})
            assert response.status_code in (200, 400), (schema, response.text)

    def test_reasoning_effort_makes_it_reason(self, server: Server) -> None:
        for effort, count in (("none", 0), ("high", 1)):
            assert len(of_type(server.create("Hi", reasoning={"effort": effort}), "reasoning")) == count


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model with a small window."""
    settings = {
        "COMPANION_CONTEXT_WINDOW": "1024",
        "COMPANION_OFFLINE_DELAY": "0",
        "COMPANION_API_KEYS": f"{KEY}=first",
    }
    with companion(tmp_path_factory.mktemp("narrow"), **settings) as url:
        yield Server(url)


class TestTruncation:
    LONG = "word " * 1500

    def test_new_input_that_does_not_fit_is_refused(self, narrow: Server) -> None:
        asked: list[Json] = [{}, {"truncation": "disabled"}, {"stream": True}]
        for fields in asked:
            error = narrow.refused(f"My name is Ada. {self.LONG}", **fields)
            assert (error["code"], error["param"]) == ("context_length_exceeded", "input")

    def test_auto_drops_the_oldest_items(self, narrow: Server) -> None:
        given = [
            message("My name is Ada."),
            message(self.LONG),
            message("My city is Bern."),
            message("What is my city?"),
        ]
        kept = narrow.create(given, truncation="auto")
        lost = narrow.create([*given[:-1], message("What is my name?")], truncation="auto")

        assert text_of(kept) == "Your city is Bern."
        assert text_of(lost) == "You have not told me your name."
        assert len(narrow.get(f"/responses/{kept['id']}/input_items")["data"]) == 4

    def test_auto_drops_an_output_with_its_call(self, narrow: Server) -> None:
        call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": self.LONG}
        given = [message("Weather?"), call, output(call, "sunny"), message("What did I say first?")]

        assert text_of(narrow.create(given, truncation="auto")) == "This is the first thing you said."

    def test_one_item_that_does_not_fit_is_refused_even_so(self, narrow: Server) -> None:
        assert narrow.refused(self.LONG, truncation="auto")["code"] == "context_length_exceeded"

    def test_what_came_before_makes_room(self, narrow: Server) -> None:
        """The past is summarised where it no longer fits, so nothing has to be refused for its sake."""
        first = narrow.create(f"My name is Ada. {'word ' * 400}")
        second = narrow.create("word " * 400, previous_response_id=first["id"])
        third = narrow.create("What is my name?", previous_response_id=second["id"])

        assert text_of(third).startswith("Your name is Ada")


class TestCompactionThreshold:
    def test_the_past_is_summarised_above_it(self, server: Server) -> None:
        first = server.create(f"My name is Ada. {'word ' * 2000}")
        plain = server.create("Hi", previous_response_id=first["id"])
        management = [{"type": "compaction", "compact_threshold": 1000}]
        compacted = server.create("Hi", previous_response_id=first["id"], context_management=management)

        assert plain["usage"]["input_tokens"] > 2000
        trace = server.get(f"/responses/{compacted['id']}/trace")
        assert trace["context"]["history_turns"] == 0 and trace["context"]["turns_to_summarise"] == 1

    def test_a_threshold_that_is_too_small(self, server: Server) -> None:
        management = [{"type": "compaction", "compact_threshold": 10}]

        assert server.refused("Hi", context_management=management)["param"] == "context_management[0].compact_threshold"


@pytest.fixture(scope="module", params=["chat", "responses"])
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A Companion, and the compatible server that answers behind it."""
    with upstream() as url:
        settings = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": UPSTREAM_KEY, "OPENAI_API": request.param}
        settings |= {"COMPANION_API_KEYS": f"{KEY}=first", "COMPANION_TITLES": "off"}
        with companion(tmp_path_factory.mktemp(request.param), **settings) as own:
            yield Server(own), url


class TestUpstream:
    """What a compatible server behind us is asked."""

    def test_parameters_go_through_or_are_refused(self, behind: tuple[Server, str]) -> None:
        server, url = behind
        passed: Json = {
            "temperature": 0.5,
            "top_p": 0.5,
            "service_tier": "default",
            "prompt_cache_key": "key",
            "safety_identifier": "someone",
            "user": "someone",
        }
        server.create("Hi", **passed)
        state: Json = httpx.get(f"{url.removesuffix('/v1')}/__state").json()
        heard = state["requests"][-1]["body"]

        assert {name: heard[name] for name in passed} == passed
        assert heard.get("store") in (None, False)
        error = server.refused("Hi", prompt_cache_retention="24h")
        assert error["param"] == "prompt_cache_retention"

    def test_a_tool_of_the_server_is_a_function_there_and_demanded_once(self, behind: tuple[Server, str]) -> None:
        server, url = behind
        choice = {"type": "mcp", "server_label": "companion", "name": "current_time"}
        server.create("call current_time {}", tools=[SERVER_TOOLS], tool_choice=choice)
        state: Json = httpx.get(f"{url.removesuffix('/v1')}/__state").json()
        first, second = [each["body"] for each in state["requests"][-2:]]

        assert "current_time" in str(first["tool_choice"])
        assert "tool_choice" not in second
