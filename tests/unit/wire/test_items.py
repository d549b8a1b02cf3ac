from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidRequest
from shared.wire.items import InputItem, stored_items

type Json = dict[str, Any]

TOKEN = "0" * 32
ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])


def stored(*items: Json) -> list[Json]:
    return stored_items(ITEMS.validate_python(list(items)), TOKEN)


def one(item: Json) -> Json:
    (result,) = stored(item)
    return result


def parts(*content: Json, role: str = "user") -> list[Json]:
    return one({"role": role, "content": list(content)})["content"]


class TestStoredForm:
    def test_nothing_is_no_items(self) -> None:
        assert stored_items(None, TOKEN) == []

    def test_a_string_is_a_message_of_the_user(self) -> None:
        assert stored_items("Hi", TOKEN) == [
            {
                "id": f"msg_{TOKEN}_i0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}],
            }
        ]

    @pytest.mark.parametrize(
        ("item", "prefix"),
        [
            ({"role": "user", "content": "x"}, "msg"),
            ({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}, "fc"),
            ({"type": "function_call_output", "call_id": "c", "output": "x"}, "fco"),
            ({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "x"}, "ctc"),
            ({"type": "custom_tool_call_output", "call_id": "c", "output": "x"}, "ctco"),
            ({"type": "reasoning", "summary": []}, "rs"),
            ({"type": "compaction", "encrypted_content": "x"}, "cmp"),
            ({"type": "mcp_call", "server_label": "companion", "name": "n", "arguments": "{}"}, "mcp"),
        ],
    )
    def test_an_item_without_an_id_is_given_one_of_its_turn(self, item: Json, prefix: str) -> None:
        assert stored({"role": "user", "content": "first"}, item)[1]["id"] == f"{prefix}_{TOKEN}_i1"

    def test_an_id_that_was_sent_stays(self) -> None:
        assert one({"id": "msg_mine", "role": "user", "content": "x"})["id"] == "msg_mine"

    def test_a_status_that_was_sent_stays(self) -> None:
        assert one({"role": "user", "content": "x", "status": "incomplete"})["status"] == "incomplete"

    def test_a_call_keeps_all_it_says(self) -> None:
        call = {"type": "function_call", "call_id": "c", "name": "n", "namespace": "s", "arguments": '{"a": 1}'}

        assert one(call) == {"id": f"fc_{TOKEN}_i0", "status": "completed", **call}

    def test_reasoning_keeps_text_summary_and_seal(self) -> None:
        item = {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "t"}],
            "encrypted_content": "e",
        }

        assert one(item) == {"id": f"rs_{TOKEN}_i0", **item}

    def test_a_phase_stays(self) -> None:
        item = {"role": "assistant", "content": "x", "phase": "commentary"}

        assert one(item)["phase"] == "commentary"

    @pytest.mark.parametrize("reference", [{"id": "msg_1"}, {"type": "item_reference", "id": "msg_1"}])
    def test_a_reference_stays_one(self, reference: Json) -> None:
        assert one(reference) == {"type": "item_reference", "id": "msg_1"}

    def test_an_id_may_stand_once(self) -> None:
        with pytest.raises(InvalidRequest, match="Duplicate item found with id msg_1") as caught:
            stored({"id": "msg_1", "role": "user", "content": "x"}, {"id": "msg_1"})

        assert caught.value.param == "input"


class TestParts:
    def test_text_of_the_user_is_input(self) -> None:
        assert parts({"type": "text", "text": "x"}) == [{"type": "input_text", "text": "x"}]

    def test_text_of_the_assistant_is_output(self) -> None:
        expected: list[Json] = [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}]

        assert parts({"type": "input_text", "text": "x"}, role="assistant") == expected
        assert parts({"type": "output_text", "text": "x"}, role="assistant") == expected

    def test_annotations_stay(self) -> None:
        annotation = {"type": "url_citation", "url": "https://example.com/"}

        (part,) = parts({"type": "output_text", "text": "x", "annotations": [annotation]}, role="assistant")

        assert part["annotations"] == [annotation]

    def test_an_image_has_a_detail(self) -> None:
        assert parts({"type": "input_image", "image_url": "u"}) == [
            {"type": "input_image", "image_url": "u", "detail": "auto"}
        ]

    def test_a_file_by_its_data(self) -> None:
        part = {"type": "input_file", "file_data": "data:text/plain;base64,eA==", "filename": "a.txt"}

        assert parts(part) == [part]

    def test_parts_of_a_tool_output_are_stored_as_those_of_a_user(self) -> None:
        item = {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "text", "text": "x"}, {"type": "input_image", "image_url": "u"}],
        }

        assert one(item)["output"] == [
            {"type": "input_text", "text": "x"},
            {"type": "input_image", "image_url": "u", "detail": "auto"},
        ]

    def test_a_tool_output_names_the_part_that_cannot_be_used(self) -> None:
        item = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}

        with pytest.raises(InvalidRequest) as caught:
            one(item)

        assert caught.value.param == "input[0].output[0].image_url"


class TestRefused:
    @pytest.mark.parametrize(
        "item",
        [
            {"type": "message"},
            {"role": "user"},
            {"role": "nobody", "content": "x"},
            {"role": "user", "content": 5},
            {"role": "user", "content": [{"type": "audio"}]},
            {"type": "function_call", "call_id": "", "name": "n", "arguments": "{}"},
            {"type": "function_call", "call_id": "c", "name": "n", "arguments": {}},
            {"type": "function_call_output", "call_id": "c"},
            {"type": "reasoning", "summary": [{"text": "without type"}]},
            {"type": "reasoning", "summary": "x"},
            {"type": "unheard_of"},
            {"type": 5, "role": "user", "content": "x"},
            {},
            "x",
            None,
        ],
    )
    def test_what_is_no_item(self, item: Any) -> None:
        with pytest.raises((ValidationError, InvalidRequest)):
            stored(item)
