"""Wire conformance: the event stream, its order, its end, and how it is resumed."""

import threading
from collections import defaultdict
from typing import Any, cast

import httpx
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from tests.contract.sdk import KEY, MODEL, OTHER_KEY, TERMINAL, TIME, WEATHER, Json, Server, of_type, text_of, the

SERVER_TOOLS: Json = {"type": "mcp", "server_label": "companion", "require_approval": "never"}
SHELL: Json = {"type": "custom", "name": "shell"}
SCHEMA: Json = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FORMAT: Json = {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA}}

ASKED: dict[str, Json] = {
    "text": {"input": "Hello"},
    "much text": {"input": "write 2000 words"},
    "reasoning": {"input": "think: I must say hello\nHello"},
    "reasoning in summaries": {"input": "think: hm\nHello", "reasoning": {"summary": "auto"}},
    "encrypted reasoning": {"input": "think: hm\nHello", "include": ["reasoning.encrypted_content"]},
    "a refusal": {"input": "refuse"},
    "a call": {"input": 'call weather {"city": "Bern"}', "tools": [WEATHER]},
    "parallel calls": {"input": 'call weather {"city": "Bern"}\ncall time {}', "tools": [WEATHER, TIME]},
    "a custom call": {"input": "call shell ls -l", "tools": [SHELL]},
    "a tool of the server": {"input": "call current_time {}", "tools": [SERVER_TOOLS]},
    "structured output": {"input": "Ada", "text": FORMAT},
    "logprobs": {"input": "Hello", "include": ["message.output_text.logprobs"], "top_logprobs": 1},
    "a limit": {"input": "write 200 words", "max_output_tokens": 16},
    "a filter": {"input": "fail filter"},
    "a failure in the middle": {"input": "fail cut"},
    "a failure at once": {"input": "fail 500"},
    "nothing stored": {"input": "think: hm\nHello", "store": False},
    "background": {"input": "Hello", "background": True},
}

_PARTS = {
    "response.output_text.delta": ("response.output_text.done", "text"),
    "response.refusal.delta": ("response.refusal.done", "refusal"),
    "response.reasoning_text.delta": ("response.reasoning_text.done", "text"),
    "response.reasoning_summary_text.delta": ("response.reasoning_summary_text.done", "text"),
    "response.function_call_arguments.delta": ("response.function_call_arguments.done", "arguments"),
    "response.custom_tool_call_input.delta": ("response.custom_tool_call_input.done", "input"),
    "response.mcp_call_arguments.delta": ("response.mcp_call_arguments.done", "arguments"),
}


def place_of(event: Json) -> tuple[Any, ...]:
    """Which part (or which arguments) an event is about."""
    return event["output_index"], event.get("content_index"), event.get("summary_index")


def part_of(item: Json, event: Json) -> str:
    """The text that stands in an item where an event says."""
    if "summary_index" in event:
        return item["summary"][event["summary_index"]]["text"]
    if "content_index" in event:
        part = item["content"][event["content_index"]]
        return part.get("text", part.get("refusal"))
    return item["input"] if item["type"] == "custom_tool_call" else item["arguments"]


@pytest.fixture(scope="module", params=list(ASKED))
def events(request: pytest.FixtureRequest, server: Server) -> list[Json]:
    """A stream of each kind."""
    fields = ASKED[request.param]
    return server.stream(fields["input"], **{name: value for name, value in fields.items() if name != "input"})


class TestOrder:
    """Holds for every kind of stream."""

    def test_numbers_begin_at_0_and_have_no_gaps(self, events: list[Json]) -> None:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))

    def test_the_response_comes_first_and_last(self, events: list[Json]) -> None:
        kinds = [event["type"] for event in events]
        queued = kinds[1] == "response.queued"

        assert kinds[0] == "response.created"
        assert kinds[1 + queued] == "response.in_progress"
        assert [kind for kind in kinds if kind in TERMINAL] == [kinds[-1]]
        assert [kind for kind in kinds if kind == "response.in_progress"] == ["response.in_progress"]

    def test_the_first_snapshots_are_empty_and_the_last_is_final(self, events: list[Json]) -> None:
        responses = [event["response"] for event in events if "response" in event]

        assert all(response["output"] == [] and response["usage"] is None for response in responses[:-1])
        assert len({response["id"] for response in responses}) == 1
        assert events[-1]["type"] == f"response.{responses[-1]['status']}"
        Response.model_validate(responses[-1])

    def test_items_come_one_after_the_other_whole(self, events: list[Json]) -> None:
        added = [event for event in events if event["type"] == "response.output_item.added"]
        done = [event for event in events if event["type"] == "response.output_item.done"]

        assert [event["output_index"] for event in added] == list(range(len(added)))
        assert sorted(event["output_index"] for event in done) == list(range(len(added)))
        assert all(event["item"].get("status", "in_progress") == "in_progress" for event in added)
        assert all(event["item"].get("status") in ("completed", "incomplete") for event in done)
        assert all(not part for event in added for part in self._content(event["item"]))

    def _content(self, item: Json) -> list[Any]:
        return [item.get(name) for name in ("content", "summary", "arguments", "input")]

    def test_an_item_stays_the_same_item(self, events: list[Json]) -> None:
        seen: dict[int, list[Json]] = defaultdict(list)
        for event in events:
            if event["type"].startswith("response.output_item."):
                seen[event["output_index"]].append(event["item"])
        final = events[-1]["response"]["output"]

        assert len(seen) == len(final)
        for index, (first, last) in seen.items():
            same = ("id", "type", "call_id", "name", "role")
            assert [first.get(name) for name in same] == [last.get(name) for name in same]
            assert last == final[index]

    def test_what_is_about_an_item_comes_between_its_beginning_and_its_end(self, events: list[Json]) -> None:
        open_items: dict[int, str] = {}
        for event in events:
            match event["type"]:
                case "response.output_item.added":
                    open_items[event["output_index"]] = event["item"]["id"]
                case "response.output_item.done":
                    assert open_items.pop(event["output_index"]) == event["item"]["id"]
                case _ if "item_id" in event:
                    assert open_items[event["output_index"]] == event["item_id"]
                case _:
                    pass
        assert open_items == {}

    def test_a_part_begins_grows_and_ends(self, events: list[Json]) -> None:
        order: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for event in events:
            kind = event["type"]
            if "content_index" in event or "summary_index" in event:
                order[place_of(event)].append(kind.rpartition(".")[2] if "_part." in kind else kind)
        for kinds in order.values():
            assert kinds[0] == "added"
            assert kinds[-1] == "done"
            assert kinds[-2].endswith(".done")
            assert all(kind.endswith((".delta", "annotation.added")) for kind in kinds[1:-2])

    def test_joined_deltas_are_the_text_everywhere(self, events: list[Json]) -> None:
        final = events[-1]["response"]["output"]
        joined: dict[tuple[Any, ...], str] = defaultdict(str)
        for event in events:
            if event["type"] in _PARTS:
                joined[place_of(event)] += event["delta"]
        for event in events:
            field = next((field for done, field in _PARTS.values() if done == event["type"]), None)
            if field is not None:
                assert event[field] == joined[place_of(event)] == part_of(final[event["output_index"]], event)

    def test_the_part_that_ended_is_the_part_of_the_item(self, events: list[Json]) -> None:
        final = events[-1]["response"]["output"]
        for event in events:
            if event["type"] == "response.content_part.done":
                assert event["part"] == final[event["output_index"]]["content"][event["content_index"]]

    def test_no_event_has_a_truthy_error(self, events: list[Json]) -> None:
        """The official clients raise on one, whatever its type."""
        assert not any(event.get("error") for event in events)


class TestKinds:
    def kinds(self, server: Server, name: str) -> list[str]:
        fields = dict(ASKED[name])
        events = server.stream(fields.pop("input"), **fields)
        return list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))

    def test_text(self, server: Server) -> None:
        assert self.kinds(server, "text") == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]

    @pytest.mark.parametrize(
        ("name", "some"),
        [
            ("reasoning", ["reasoning_text.delta", "reasoning_text.done"]),
            (
                "reasoning in summaries",
                ["reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_part.done"],
            ),
            ("a refusal", ["refusal.delta", "refusal.done"]),
            ("a call", ["function_call_arguments.delta", "function_call_arguments.done"]),
            ("a custom call", ["custom_tool_call_input.delta", "custom_tool_call_input.done"]),
            ("a tool of the server", ["mcp_call_arguments.done", "mcp_call.in_progress", "mcp_call.completed"]),
            ("a limit", ["incomplete"]),
            ("a filter", ["incomplete"]),
            ("a failure in the middle", ["output_text.delta", "output_item.done", "failed"]),
        ],
    )
    def test_each_kind_says_what_it_is(self, server: Server, name: str, some: list[str]) -> None:
        kinds = self.kinds(server, name)

        assert [kind for kind in kinds if kind in some] == some

    def test_the_end_of_arguments_names_the_function(self, server: Server) -> None:
        events = server.stream('call weather {"city": "Bern"}', tools=[WEATHER])
        (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]

        assert (done["name"], done["arguments"]) == ("weather", '{"city": "Bern"}')

    def test_text_events_carry_logprobs(self, server: Server) -> None:
        plain, asked = (
            [event for event in server.stream("Hello", **fields) if event["type"].startswith("response.output_text.d")]
            for fields in ({}, {"include": ["message.output_text.logprobs"], "top_logprobs": 1})
        )

        assert all(event["logprobs"] == [] for event in plain)
        assert all(event["logprobs"][0]["top_logprobs"] for event in asked)

    def test_a_failure_says_why(self, server: Server) -> None:
        last = server.stream("fail 500")[-1]

        assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
        assert last["response"]["error"].keys() == {"code", "message"}

    def test_a_failure_before_the_first_event_is_a_status(self, server: Server) -> None:
        assert server.refused("Hi", stream=True, previous_response_id="resp_nothing")["param"] == "previous_response_id"


class TestTransport:
    def test_headers(self, server: Server) -> None:
        body = {"model": MODEL, "input": "Hi", "stream": True}
        response = server.send("POST", "/responses", body, headers={"accept": "application/json"})

        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"].startswith("req_")

    def test_only_the_body_selects_a_stream(self, server: Server) -> None:
        accept = {"accept": "text/event-stream"}
        plain = server.send("POST", "/responses", {"model": MODEL, "input": "Hi"}, headers=accept)
        retrieved = server.send("GET", f"/responses/{plain.json()['id']}", headers=accept)

        assert [each.headers["content-type"] for each in (plain, retrieved)] == ["application/json"] * 2

    def test_a_frame_is_event_then_data(self, server: Server) -> None:
        frames = server.frames("POST", "/responses", {"model": MODEL, "input": "Hi", "stream": True})

        assert frames[-1] == "data: [DONE]"
        assert all(frame.startswith("event: response.") and frame.count("\n") == 1 for frame in frames[:-1])

    def test_text_is_utf_8(self, server: Server) -> None:
        events = server.stream("My name is Zoë 👩‍🚀. What is my name?")

        assert text_of(events[-1]["response"]) == "Your name is Zoë 👩‍🚀."

    def test_events_come_as_they_are_made(self, server: Server) -> None:
        body = {"model": MODEL, "input": "slowly 30s: one two three four", "stream": True}
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.stream("POST", f"{server.url}/responses", json=body, headers=headers, timeout=20) as response:
            seen = next(line for line in response.iter_lines() if "output_text.delta" in line)

        assert seen


class TestHelper:
    """The SDK's own accumulator, which complains about much of what is wrong."""

    def final(self, server: Server, **fields: Any) -> Any:
        with server.client() as client:
            stream: Any = client.responses.stream
            with stream(model=MODEL, **fields) as events:
                for _ in events:
                    pass
                return events.get_final_response()

    def test_text(self, server: Server) -> None:
        assert self.final(server, input="My name is Ada. What is my name?").output_text == "Your name is Ada."

    def test_tools(self, server: Server) -> None:
        response = self.final(server, input='call weather {"city": "Bern"}', tools=[WEATHER])

        assert [(item.name, item.arguments) for item in response.output] == [("weather", '{"city": "Bern"}')]

    def test_reasoning(self, server: Server) -> None:
        response = self.final(server, input="think: hm\nHello")

        assert [item.type for item in response.output] == ["reasoning", "message"]

    def test_a_reasoning_model(self, server: Server) -> None:
        with server.client() as client, client.responses.stream(model="companion-reasoning", input="Hello") as stream:
            kinds = {event.type for event in stream}

        assert {"response.reasoning_text.delta", "response.output_text.delta"} <= kinds

    def test_a_refusal(self, server: Server) -> None:
        response = self.final(server, input="refuse")

        assert response.output[0].content[0].refusal.startswith("I'm sorry")

    def test_structured_output(self, server: Server) -> None:
        class Person(BaseModel):
            name: str
            age: int

        response = self.final(server, input="Ada", text_format=Person)

        assert isinstance(response.output_parsed, Person)

    def test_a_tool_of_the_server(self, server: Server) -> None:
        response = self.final(server, input="call current_time {}", tools=[SERVER_TOOLS])

        assert [item.type for item in response.output] == ["mcp_call", "message"]

    def test_resuming(self, server: Server) -> None:
        whole = server.stream("count to 30")
        id_ = whole[0]["response"]["id"]
        with server.client() as client, client.responses.stream(response_id=id_, starting_after=3) as stream:
            numbers = [event.sequence_number for event in stream if hasattr(event, "sequence_number")]
            final = stream.get_final_response()

        assert numbers[0] > 3
        assert final.output_text == text_of(whole[-1]["response"])


@pytest.fixture(scope="module")
def whole(server: Server) -> list[Json]:
    """A stream that has ended."""
    return server.stream("think: hm\nwrite 300 words")


class TestResume:
    def test_it_is_what_was_sent(self, server: Server, whole: list[Json]) -> None:
        assert server.resume(whole[0]["response"]["id"]) == whole

    @pytest.mark.parametrize("after", [0, 1, 4])
    def test_it_begins_behind_the_number(self, server: Server, whole: list[Json], after: int) -> None:
        assert server.resume(whole[0]["response"]["id"], starting_after=after) == whole[after + 1 :]

    def test_behind_the_last_there_is_nothing(self, server: Server, whole: list[Json]) -> None:
        last = len(whole) - 1
        for after in (last, last + 1, 10_000):
            assert server.resume(whole[0]["response"]["id"], starting_after=after) == []

    def test_what_is_no_number_is_refused(self, server: Server, whole: list[Json]) -> None:
        path = f"/responses/{whole[0]['response']['id']}"
        for after in ("x", "1.5", "1e3", "0x1"):
            params = {"stream": "true", "starting_after": after}
            assert server.error("GET", path, status=400, params=params)["param"] == "starting_after"

    def test_it_needs_a_stream(self, server: Server, whole: list[Json]) -> None:
        path = f"/responses/{whole[0]['response']['id']}"

        assert server.error("GET", path, status=400, params={"starting_after": 1})["param"] == "starting_after"

    def test_a_response_that_was_not_streamed(self, server: Server) -> None:
        created = server.create("think: hm\nHello")

        assert server.resume(created["id"])[-1]["response"] == created

    def test_several_readers_follow_a_running_response(self, server: Server) -> None:
        begun = server.create("slowly 1s: write 40 words", background=True)
        read: list[list[Json]] = []
        readers = [
            threading.Thread(target=lambda: read.append(server.resume(begun["id"], starting_after=0))) for _ in range(3)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(30)

        assert len(read) == 3
        assert read[0] == read[1] == read[2] == server.resume(begun["id"], starting_after=0)
        assert read[0][-1]["type"] == "response.completed"

    def test_a_client_that_left_comes_back_for_the_rest(self, server: Server) -> None:
        seen: list[Json] = []
        with server.client() as client:
            with client.responses.create(model=MODEL, input="slowly 1s: write 40 words", stream=True) as stream:
                for event in stream:
                    seen.append(cast(Json, event.to_dict()))
                    if event.type == "response.output_text.delta":
                        break
            last, id_ = seen[-1]["sequence_number"], seen[0]["response"]["id"]
            rest = [
                cast(Json, event.to_dict())
                for event in client.responses.retrieve(response_id=id_, stream=True, starting_after=last)
            ]

        assert [event["sequence_number"] for event in [*seen, *rest]] == list(range(last + 1 + len(rest)))
        assert text_of(rest[-1]["response"]) == "".join(event.get("delta", "") for event in [*seen, *rest])

    def test_somebody_elses_stream_is_not_there(self, server: Server, whole: list[Json]) -> None:
        path = f"/responses/{whole[0]['response']['id']}"

        server.error("GET", path, status=404, key=OTHER_KEY, params={"stream": "true"})

    def test_encrypted_reasoning_is_streamed_where_it_was_included(self, server: Server) -> None:
        plain = server.stream("think: hm\nHello")
        asked = server.stream("think: hm\nHello", include=["reasoning.encrypted_content"])

        assert "encrypted_content" not in str(plain)
        assert the(asked[-1]["response"], "reasoning")["encrypted_content"]
        assert of_type(asked[-1]["response"], "reasoning") == [
            event["item"]
            for event in asked
            if event["type"] == "response.output_item.done" and event["item"]["type"] == "reasoning"
        ]
