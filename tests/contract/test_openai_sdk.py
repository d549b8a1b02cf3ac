"""Wire conformance: the response object, what may be sent, what is stored and how it is found again.

Beside it: the stream (`test_openai_sdk_stream.py`), conversations, lists, models and embeddings
(`test_openai_sdk_resources.py`), errors and parameters (`test_openai_sdk_errors.py`).
"""

import time
from typing import Any

import pytest
from openai import NotFoundError
from openai.types.responses import Response
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import BaseModel

from tests.contract.sdk import (
    MODEL,
    OTHER_KEY,
    TIME,
    WEATHER,
    Json,
    Server,
    message,
    of_type,
    output,
    pages,
    text_of,
    texts,
    the,
)

OF_OPENAI = (
    "id object created_at model output tools tool_choice parallel_tool_calls temperature top_p metadata instructions"
    " error incomplete_details"
)
OF_OPEN_RESPONSES = (
    "id object created_at completed_at status incomplete_details model previous_response_id instructions output error"
    " tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs"
    " temperature reasoning usage max_output_tokens max_tool_calls store background service_tier metadata"
    " safety_identifier prompt_cache_key"
)
REQUIRED = frozenset(f"{OF_OPENAI} {OF_OPEN_RESPONSES} conversation user".split())


def user_text(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


class TestResponseObject:
    def test_every_required_key_is_there_even_if_null(self, server: Server) -> None:
        created = server.create("Hi")
        retrieved = server.get(f"/responses/{created['id']}")
        snapshots = [event["response"] for event in server.stream("Hi") if "response" in event]

        assert [REQUIRED - each.keys() for each in (created, retrieved, *snapshots)] == [frozenset()] * 5

    def test_what_is_retrieved_is_what_was_created(self, server: Server) -> None:
        created = server.create("Hi", metadata={"a": "b"}, tools=[WEATHER], user="someone")

        assert server.get(f"/responses/{created['id']}") == created

    def test_the_sdk_reads_it(self, server: Server) -> None:
        with server.client() as client:
            response = client.responses.create(model=MODEL, input="My name is Ada. What is my name?")

        assert response.output_text == "Your name is Ada."
        assert Response.model_validate(response.model_dump()).status == "completed"

    def test_defaults_are_echoed(self, server: Server) -> None:
        response = server.create("Hi")

        expected: Json = {
            "object": "response",
            "model": MODEL,
            "status": "completed",
            "temperature": 1.0,
            "top_p": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "top_logprobs": 0,
            "truncation": "disabled",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "store": True,
            "background": False,
            "text": {"format": {"type": "text"}},
            "metadata": {},
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "previous_response_id": None,
            "conversation": None,
            "max_output_tokens": None,
            "max_tool_calls": None,
            "user": None,
        }
        assert {name: response[name] for name in expected} == expected

    def test_what_was_sent_is_echoed(self, server: Server) -> None:
        sent: Json = {
            "instructions": "Be brief.",
            "temperature": 0.5,
            "top_p": 0.9,
            "presence_penalty": 0.25,
            "frequency_penalty": -0.25,
            "truncation": "auto",
            "parallel_tool_calls": False,
            "tool_choice": {"type": "function", "name": "weather"},
            "metadata": {"key": "value"},
            "max_output_tokens": 500,
            "max_tool_calls": 3,
            "safety_identifier": "someone",
            "prompt_cache_key": "key",
            "user": "someone",
            "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        }

        response = server.create("Hi", tools=[WEATHER], **sent)

        assert {name: response[name] for name in sent} == sent
        assert server.create("Hi", reasoning={"effort": "low"})["reasoning"] == {"effort": "low", "summary": None}

    def test_function_tools_come_back_whole(self, server: Server) -> None:
        shown = server.create("Hi", tools=[WEATHER, TIME])["tools"]

        assert shown == [WEATHER, {**TIME, "description": None, "strict": True}]

    def test_usage_has_its_details_and_adds_up(self, server: Server) -> None:
        usage = server.create("think: hm\nHello")["usage"]

        assert usage.keys() == {
            "input_tokens",
            "input_tokens_details",
            "output_tokens",
            "output_tokens_details",
            "total_tokens",
            "cost",
        }
        assert usage["input_tokens_details"].keys() == {"cached_tokens", "cache_write_tokens"}
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]

    def test_usage_and_completion_time_are_null_until_the_end(self, server: Server) -> None:
        first, *_, last = [event["response"] for event in server.stream("Hi") if "response" in event]

        assert (first["status"], first["usage"], first["completed_at"], first["output"]) == (
            "in_progress",
            None,
            None,
            [],
        )
        assert last["usage"] is not None
        assert last["completed_at"] >= last["created_at"]

    def test_a_conversation_is_shown_as_an_object(self, server: Server) -> None:
        id_ = server.post("/conversations", {})["id"]

        assert server.create("Hi", conversation=id_)["conversation"] == {"id": id_}
        assert server.create("Hi", conversation={"id": id_})["conversation"] == {"id": id_}

    def test_an_answer_cut_at_its_limit_is_incomplete(self, server: Server) -> None:
        response = server.create("write 200 words", max_output_tokens=16)

        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (response["completed_at"], response["error"]) == (None, None)
        assert [item["status"] for item in response["output"]] == ["incomplete"]

    def test_a_filtered_answer_is_incomplete(self, server: Server) -> None:
        response = server.create("fail filter")

        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})

    def test_a_failed_response_says_why_in_code_and_message(self, server: Server) -> None:
        events = server.stream("fail cut")
        failed = server.get(f"/responses/{events[0]['response']['id']}")

        assert failed["status"] == "failed"
        assert failed["error"].keys() == {"code", "message"}
        assert failed["error"]["code"] == "server_error"
        assert (failed["completed_at"], failed["incomplete_details"]) == (None, None)
        Response.model_validate(failed)

    def test_output_text_is_left_to_the_sdk(self, server: Server) -> None:
        assert "output_text" not in server.create("Hi")

    def test_ids_have_the_prefixes_that_clients_look_for(self, server: Server) -> None:
        response = server.create("think: hm\nHi")
        call = the(server.create("call weather {}", tools=[WEATHER]), "function_call")

        assert response["id"].startswith("resp_")
        assert the(response, "message")["id"].startswith("msg_")
        assert the(response, "reasoning")["id"].startswith("rs_")
        assert (call["id"][:3], call["call_id"][:5]) == ("fc_", "call_")


class TestOutputItems:
    def test_a_message(self, server: Server) -> None:
        item = the(server.create("My name is Ada. What is my name?"), "message")

        assert item == {
            "id": item["id"],
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Your name is Ada.", "annotations": [], "logprobs": []}],
        }

    def test_a_refusal(self, server: Server) -> None:
        (part,) = the(server.create("refuse"), "message")["content"]

        assert part == {"type": "refusal", "refusal": "I'm sorry, but I was told to refuse."}

    def test_a_function_call(self, server: Server) -> None:
        item = the(server.create('call weather {"city": "Bern"}', tools=[WEATHER]), "function_call")

        assert item == {
            "id": item["id"],
            "type": "function_call",
            "status": "completed",
            "call_id": item["call_id"],
            "name": "weather",
            "arguments": '{"city": "Bern"}',
        }

    def test_parallel_calls(self, server: Server) -> None:
        response = server.create('call weather {"city": "Bern"}\ncall time {}', tools=[WEATHER, TIME])

        assert [item["name"] for item in of_type(response, "function_call")] == ["weather", "time"]

    def test_one_call_at_a_time_where_asked(self, server: Server) -> None:
        text = 'call weather {"city": "Bern"}\ncall time {}'
        response = server.create(text, tools=[WEATHER, TIME], parallel_tool_calls=False)

        assert [item["name"] for item in of_type(response, "function_call")] == ["weather"]

    def test_reasoning_with_its_text_or_its_summary(self, server: Server) -> None:
        with_text = the(server.create("think: hm\nHi"), "reasoning")
        with_summary = the(server.create("think: hm\nHi", reasoning={"summary": "auto"}), "reasoning")

        assert (with_text["summary"], with_text["content"]) == ([], [{"type": "reasoning_text", "text": "hm"}])
        assert with_summary["summary"] == [{"type": "summary_text", "text": "hm"}]

    def test_a_reasoning_model_reasons_unasked(self, server: Server) -> None:
        with server.client() as client:
            response = client.responses.create(model="companion-reasoning", input="Hello")

        assert [item.type for item in response.output] == ["reasoning", "message"]

    def test_encrypted_reasoning_is_shown_where_it_was_included(self, server: Server) -> None:
        plain = server.create("think: hm\nHi")
        included = server.create("think: hm\nHi", include=["reasoning.encrypted_content"])
        later = server.get(f"/responses/{plain['id']}", **{"include[]": "reasoning.encrypted_content"})

        assert "encrypted_content" not in the(plain, "reasoning")
        assert the(included, "reasoning")["encrypted_content"]
        assert the(later, "reasoning")["encrypted_content"]

    def test_a_custom_tool_is_called_with_text(self, server: Server) -> None:
        tool = {"type": "custom", "name": "shell"}
        call = the(server.create("call shell ls -l", tools=[tool]), "custom_tool_call")
        answer = server.create(
            [{"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "a.txt"}],
            tools=[tool],
            previous_response_id="resp_" + call["id"].split("_")[1],
        )

        assert (call["name"], call["input"]) == ("shell", "ls -l")
        assert text_of(answer) == "shell said: a.txt"

    def test_a_tool_of_the_server_runs_there(self, server: Server) -> None:
        tool = {"type": "mcp", "server_label": "companion", "require_approval": "never"}
        response = server.create("call current_time {}", tools=[tool])
        item = the(response, "mcp_call")

        assert (item["status"], item["server_label"], item["name"]) == ("completed", "companion", "current_time")
        assert (item["error"], bool(item["output"])) == (None, True)
        assert text_of(response).startswith("current_time said: ")

    def test_structured_output_is_parsed_by_the_sdk(self, server: Server) -> None:
        class Person(BaseModel):
            name: str
            age: int

        with server.client() as client:
            response = client.responses.parse(model=MODEL, input="Ada, 36", text_format=Person)

        assert isinstance(response.output_parsed, Person)


class TestInput:
    """Every form of PROTOCOL that clients send."""

    def said_first(self, server: Server, given: Any, **fields: Any) -> str:
        """What the model was told first, as it saw it."""
        return text_of(server.create([*given, message("What did I say first?")], **fields))

    def test_a_string(self, server: Server) -> None:
        assert text_of(server.create("My name is Ada. What is my name?")) == "Your name is Ada."

    @pytest.mark.parametrize(
        "given",
        [
            message("Hello"),
            {"type": "message", "role": "user", "content": "Hello"},
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "message", "id": "msg_mine", "role": "user", "content": "Hello", "status": "completed"},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        ],
    )
    def test_a_message_with_and_without_type_and_parts(self, server: Server, given: Json) -> None:
        assert self.said_first(server, [given]) == "The first thing you said: Hello"

    @pytest.mark.parametrize("role", ["system", "developer", "assistant"])
    def test_every_role(self, server: Server, role: str) -> None:
        response = server.create([message("Hello", role), message("How many messages?")])
        items = server.get(f"/responses/{response['id']}/input_items", order="asc")["data"]

        assert (items[0]["role"], texts(items)[0]) == (role, "Hello")

    def test_what_the_assistant_said_as_string_or_parts(self, server: Server) -> None:
        part: Json = {"type": "output_text", "text": "I am fine.", "annotations": []}
        for content in ("I am fine.", [part]):
            given = [message("How are you?"), {"role": "assistant", "content": content}, message("What did you say?")]
            assert text_of(server.create(given)) == "I said: I am fine."

    def test_a_refusal_that_is_sent_back(self, server: Server) -> None:
        refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}

        assert server.create([message("Please"), refusal, message("Again")])["status"] == "completed"

    def test_an_image_by_url_and_by_data(self, server: Server) -> None:
        for url in ("https://example.com/a.png", "data:image/png;base64,aGVsbG8="):
            parts = [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": url, "detail": "low"}]
            response = server.create([{"role": "user", "content": parts}])
            items = server.get(f"/responses/{response['id']}/input_items")["data"]

            assert text_of(response).startswith("I see 1 image")
            assert items[0]["content"][1] == {"type": "input_image", "image_url": url, "detail": "low"}

    def test_a_function_call_without_an_id(self, server: Server) -> None:
        call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Bern"}'}
        response = server.create([message("Weather?"), call, output(call, "sunny")], tools=[WEATHER])
        stored = server.get(f"/responses/{response['id']}/input_items", order="asc")["data"][1]

        assert text_of(response) == "weather said: sunny"
        assert (stored["id"][:3], stored["status"]) == ("fc_", "completed")

    @pytest.mark.parametrize(
        "parts", ["sunny", [{"type": "input_text", "text": "sunny"}], [{"type": "text", "text": "sunny"}]]
    )
    def test_a_tool_output_as_string_or_parts(self, server: Server, parts: Any) -> None:
        first = server.create('call weather {"city": "Bern"}', tools=[WEATHER])
        given = [output(the(first, "function_call"), parts)]
        response = server.create(given, previous_response_id=first["id"], tools=[WEATHER])
        stored = server.get(f"/responses/{response['id']}/input_items")["data"][0]

        assert text_of(response) == "weather said: sunny"
        assert stored["output"] in ("sunny", [{"type": "input_text", "text": "sunny"}])

    def test_a_tool_output_with_an_image(self, server: Server) -> None:
        first = server.create("call weather {}", tools=[WEATHER])
        parts = [{"type": "input_image", "image_url": "https://example.com/a.png"}]
        response = server.create([output(the(first, "function_call"), parts)], previous_response_id=first["id"])

        assert response["status"] == "completed"

    def test_reasoning_that_is_sent_back(self, server: Server) -> None:
        first = server.create("think: hm\nHi", store=False, include=["reasoning.encrypted_content"])
        second = server.create([message("Hi"), *first["output"], message("What did I say first?")], store=False)

        assert text_of(second) == "The first thing you said: Hi"

    @pytest.mark.parametrize("typed", [True, False])
    def test_a_reference_with_and_without_type(self, server: Server, typed: bool) -> None:
        first = server.create("My name is Ada.")
        kind = {"type": "item_reference"} if typed else {}
        reference = {**kind, "id": the(first, "message")["id"]}
        response = server.create([message("Hello"), reference, message("What did you say?")])

        assert text_of(response) == f"I said: {text_of(first)}"

    def test_a_reference_to_an_item_of_a_conversation(self, server: Server) -> None:
        conversation = server.post("/conversations", {"items": [message("My name is Ada.")]})["id"]
        (item,) = server.get(f"/conversations/{conversation}/items")["data"]

        assert text_of(server.create([{"id": item["id"]}, message("What is my name?")])) == "Your name is Ada."

    def test_a_reference_to_nothing(self, server: Server) -> None:
        error = server.refused([{"type": "item_reference", "id": "msg_nothing"}], status=404)

        assert "msg_nothing" in error["message"]

    def test_somebody_elses_item_is_nothing(self, server: Server) -> None:
        id_ = the(server.create("Hi"), "message")["id"]
        body = {"model": MODEL, "input": [{"type": "item_reference", "id": id_}]}

        server.error("POST", "/responses", body, status=404, key=OTHER_KEY)

    def test_no_input_at_all(self, server: Server) -> None:
        assert server.refused()["param"] == "input"
        assert server.refused([])["param"] == "input"

    def test_no_input_behind_a_response_or_in_a_conversation(self, server: Server) -> None:
        first = server.create("My name is Ada.")
        conversation = server.post("/conversations", {"items": [message("Hello")]})["id"]

        assert server.create(previous_response_id=first["id"])["status"] == "completed"
        assert server.create(conversation=conversation)["status"] == "completed"

    def test_duplicate_ids_in_one_input(self, server: Server) -> None:
        item = {"id": "msg_twice", "role": "user", "content": "Hello"}

        error = server.refused([item, item])

        assert (error["message"][:36], error["param"]) == ("Duplicate item found with id msg_twi", "input")

    def test_an_id_that_the_history_has_already(self, server: Server) -> None:
        first = server.create("Hi")
        error = server.refused(first["output"], previous_response_id=first["id"])

        assert error["message"].startswith(f"Duplicate item found with id {the(first, 'message')['id']}")

    def test_a_call_without_its_output(self, server: Server) -> None:
        first = server.create("call weather {}", tools=[WEATHER])
        call_id = the(first, "function_call")["call_id"]
        places: list[Json] = [
            {"previous_response_id": first["id"]},
            {"conversation": self.conversation_of(server, call_id)},
        ]
        for place in places:
            error = server.refused("Go on", **place)
            assert (error["message"], error["param"]) == (f"No tool output found for function call {call_id}.", "input")

    def conversation_of(self, server: Server, call_id: str) -> str:
        call = {"type": "function_call", "call_id": call_id, "name": "weather", "arguments": "{}"}
        return server.post("/conversations", {"items": [message("Weather?"), call]})["id"]

    def test_an_output_without_its_call(self, server: Server) -> None:
        error = server.refused([output({"call_id": "call_unknown"}, "sunny")])

        assert error["message"] == "No tool call found for function call output with call_id call_unknown."


class TestState:
    def test_a_chain_sees_everything_before_it_in_order(self, server: Server) -> None:
        first = server.create("My name is Ada.")
        second = server.create("My city is Bern.", previous_response_id=first["id"])
        third = server.create("What did I say first?", previous_response_id=second["id"])
        fourth = server.create("How many messages?", previous_response_id=third["id"])

        assert text_of(third) == "The first thing you said: My name is Ada."
        assert text_of(fourth) == "This is message 4 of this conversation."
        assert third["previous_response_id"] == second["id"]

    def test_forks_do_not_see_each_other(self, server: Server) -> None:
        root = server.create("My name is Ada.")
        left = server.create("My city is Bern.", previous_response_id=root["id"])
        right = server.create("My city is Rome.", previous_response_id=root["id"])

        asked = [server.create("What is my city?", previous_response_id=each["id"]) for each in (left, right)]

        assert [text_of(each) for each in asked] == ["Your city is Bern.", "Your city is Rome."]

    def test_instructions_and_tools_do_not_carry_over(self, server: Server) -> None:
        first = server.create("Hello", instructions="Be kind.", tools=[WEATHER], metadata={"a": "b"})
        second = server.create("What are your instructions?", previous_response_id=first["id"])

        assert text_of(second) == "My instructions: none"
        assert (second["instructions"], second["tools"], second["metadata"]) == (None, [], {})

    def test_what_is_not_stored_is_not_there(self, server: Server) -> None:
        id_ = server.create("Hi", store=False)["id"]

        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            server.error(method, f"/responses/{id_}{path}", status=404)
        error = server.refused("Hello", previous_response_id=id_)
        assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")

    def test_background_needs_storage(self, server: Server) -> None:
        assert server.refused("Hi", background=True, store=False)["param"] == "background"

    def test_a_conversation_and_a_previous_response_exclude_each_other(self, server: Server) -> None:
        first = server.create("Hi")
        conversation = server.post("/conversations", {})["id"]

        error = server.refused("Hi", previous_response_id=first["id"], conversation=conversation)

        assert error["param"] in ("previous_response_id", "conversation")

    def test_a_conversation_goes_on(self, server: Server) -> None:
        id_ = server.post("/conversations", {"items": [message("My name is Ada.")]})["id"]
        response = server.create("What is my name?", conversation=id_)
        shown = server.get(f"/conversations/{id_}/items", order="asc")["data"]

        assert text_of(response) == "Your name is Ada."
        assert texts(shown) == ["My name is Ada.", "What is my name?", "Your name is Ada."]

    def test_a_tool_loop_leaves_each_item_once(self, server: Server) -> None:
        id_ = server.post("/conversations", {})["id"]
        first = server.create('call weather {"city": "Bern"}', conversation=id_, tools=[WEATHER])
        server.create([output(the(first, "function_call"), "sunny")], conversation=id_, tools=[WEATHER])

        shown = server.get(f"/conversations/{id_}/items", order="asc")["data"]

        assert [item["type"] for item in shown] == ["message", "function_call", "function_call_output", "message"]

    def test_a_failed_turn_leaves_nothing_in_its_conversation(self, server: Server) -> None:
        id_ = server.post("/conversations", {})["id"]
        server.refused("fail 500", conversation=id_, status=502)

        assert server.get(f"/conversations/{id_}/items")["data"] == []

    def test_a_busy_conversation_is_locked_for_a_moment(self, server: Server) -> None:
        id_ = server.post("/conversations", {})["id"]
        running = server.create("slowly 30s: Hello", conversation=id_, background=True)
        refusal = server.send("POST", "/responses", {"model": MODEL, "input": "Hi", "conversation": id_})
        server.post(f"/responses/{running['id']}/cancel", {})

        error = refusal.json()["error"]
        assert (refusal.status_code, error["code"], error["param"]) == (409, "conversation_locked", "conversation")
        assert int(refusal.headers["retry-after-ms"]) > 0

    def test_delete_and_delete_again(self, server: Server) -> None:
        id_ = server.create("Hi")["id"]

        assert server.send("DELETE", f"/responses/{id_}").json() == {"id": id_, "object": "response", "deleted": True}
        server.error("DELETE", f"/responses/{id_}", status=404)
        server.error("GET", f"/responses/{id_}", status=404)

    def test_what_was_built_on_a_deleted_response_stays(self, server: Server) -> None:
        first = server.create("My name is Ada.")
        second = server.create("Hello", previous_response_id=first["id"])
        server.send("DELETE", f"/responses/{first['id']}")

        third = server.create("What is my name?", previous_response_id=second["id"])

        assert text_of(third) == "Your name is Ada."
        assert server.refused("Hi", previous_response_id=first["id"])["code"] == "previous_response_not_found"

    def test_somebody_elses_response_is_not_there(self, server: Server) -> None:
        id_ = server.create("Hi")["id"]

        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            server.error(method, f"/responses/{id_}{path}", status=404, key=OTHER_KEY)
        body = {"model": MODEL, "input": "Hi", "previous_response_id": id_}
        error = server.error("POST", "/responses", body, status=400, key=OTHER_KEY)
        assert error["code"] == "previous_response_not_found"


class TestBackground:
    def wait(self, server: Server, response: Json) -> Json:
        deadline = time.monotonic() + 20
        while response["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            response = server.get(f"/responses/{response['id']}")
        return response

    def test_it_is_answered_at_once_and_polled(self, server: Server) -> None:
        begun = server.create("Hello", background=True)
        ended = self.wait(server, begun)

        assert begun["status"] in ("queued", "in_progress")
        assert (begun["background"], begun["output"], begun["usage"]) == (True, [], None)
        assert (ended["status"], bool(text_of(ended))) == ("completed", True)

    def test_it_streams(self, server: Server) -> None:
        events = server.stream("Hello", background=True)

        assert [event["type"] for event in events[:3]] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["response"]["background"] is True

    def test_it_is_cancelled_and_cancelled_again(self, server: Server) -> None:
        begun = server.create("slowly 30s: Hello", background=True)
        first = server.post(f"/responses/{begun['id']}/cancel", {})
        second = server.post(f"/responses/{begun['id']}/cancel", {})

        assert (first["status"], first) == ("cancelled", second)
        assert server.get(f"/responses/{begun['id']}") == first

    def test_cancelling_what_has_ended_changes_nothing(self, server: Server) -> None:
        ended = server.create("Hi")

        assert server.post(f"/responses/{ended['id']}/cancel", {}) == ended

    def test_an_open_stream_ends_when_its_response_is_cancelled(self, server: Server) -> None:
        with server.client() as client:
            stream = client.responses.create(model=MODEL, input="slowly 30s: one two three", stream=True)
            first = next(stream)
            assert first.type == "response.created"
            for event in stream:
                if event.type == "response.output_text.delta":
                    break
            cancelled = client.responses.cancel(first.response.id)
            *_, last = stream

        assert last.type == "response.failed"
        assert (last.response.status, cancelled.status) == ("cancelled", "cancelled")
        assert last.response.output == cancelled.output
        assert cancelled.output_text


class TestInputItems:
    def test_newest_first_unless_asked_otherwise(self, server: Server) -> None:
        id_ = server.create([message(str(number)) for number in range(3)])["id"]
        path = f"/responses/{id_}/input_items"

        assert texts(server.get(path)["data"]) == ["2", "1", "0"]
        assert texts(server.get(path, order="asc")["data"]) == ["0", "1", "2"]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("count", [4, 5])
    def test_pages_follow_each_other_exactly(self, server: Server, order: str, count: int) -> None:
        id_ = server.create([message(str(number)) for number in range(count)])["id"]
        found = [texts(page["data"]) for page in pages(server, f"/responses/{id_}/input_items", order=order, limit=2)]

        joined = [text for page in found for text in page]
        assert joined == sorted(joined, reverse=order == "desc")
        assert [len(page) for page in found] == ([2, 2] if count == 4 else [2, 2, 1])

    def test_the_sdk_pages(self, server: Server) -> None:
        id_ = server.create([message(str(number)) for number in range(5)])["id"]
        with server.client() as client:
            listed = list(client.responses.input_items.list(id_, limit=2, include=["message.input_image.image_url"]))

        assert len({item.id for item in listed}) == 5

    def test_items_are_in_stored_form(self, server: Server) -> None:
        id_ = server.create([message("Hi"), message("Hello", "assistant"), message("Bye")])["id"]
        page = server.get(f"/responses/{id_}/input_items", order="asc")

        ResponseItemList.model_validate(page)
        assert [(item["type"], item["status"], bool(item["id"])) for item in page["data"]] == [
            ("message", "completed", True)
        ] * 3
        assert page["data"][1]["content"] == [
            {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
        ]

    def test_only_the_own_items_are_listed(self, server: Server) -> None:
        first = server.create("One")
        second = server.create("Two", previous_response_id=first["id"])

        assert texts(server.get(f"/responses/{second['id']}/input_items")["data"]) == ["Two"]

    def test_the_page_of_an_empty_input(self, server: Server) -> None:
        first = server.create("One")
        second = server.create(previous_response_id=first["id"])
        page = server.get(f"/responses/{second['id']}/input_items")

        assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    def test_a_cursor_to_nothing(self, server: Server) -> None:
        id_ = server.create("One")["id"]

        server.error("GET", f"/responses/{id_}/input_items", status=404, params={"after": "msg_nothing"})


class TestTokensAndCompaction:
    def test_tokens_are_counted(self, server: Server) -> None:
        with server.client() as client:
            counted = client.responses.input_tokens.count(model=MODEL, input="Hello there", instructions="Be kind.")
            more = client.responses.input_tokens.count(model=MODEL, input="Hello there " * 20, tools=[TIME])  # pyright: ignore[reportArgumentType]

        assert counted.object == "response.input_tokens"
        assert 0 < counted.input_tokens < more.input_tokens

    def test_a_context_is_compacted_and_goes_on(self, server: Server) -> None:
        first = server.create("My name is Ada.")
        with server.client() as client:
            compacted = client.responses.compact(model=MODEL, previous_response_id=first["id"])
        items = [item.model_dump(exclude_none=True, warnings=False) for item in compacted.output]
        answer = server.create([items[-1], message("What is my name?")])

        assert compacted.object == "response.compaction"
        assert [item["type"] for item in items] == ["message", "compaction"]
        assert text_of(answer) == "Your name is Ada."

    def test_somebody_elses_response_is_not_deleted_by_the_sdk(self, server: Server) -> None:
        id_ = server.create("Hi")["id"]

        with server.client(OTHER_KEY) as client, pytest.raises(NotFoundError):
            client.responses.delete(id_)
