"""Wire conformance: conversations and their items, lists, models, embeddings."""

import base64
import struct
from typing import Any
from uuid import uuid4

import pytest
from openai.pagination import SyncConversationCursorPage
from openai.types import Model
from openai.types.conversations import Conversation, ConversationItem, ConversationItemList
from pydantic import TypeAdapter

from tests.contract.sdk import KEY, MODEL, OTHER_KEY, WEATHER, Json, Server, message, pages, text_of, texts, the

ITEM: TypeAdapter[ConversationItem] = TypeAdapter(ConversationItem)


def begin(server: Server, *items: Json, **fields: Any) -> str:
    """A conversation's id."""
    body = {"items": list(items), **fields} if items else fields
    return server.post("/conversations", body)["id"]


def shown(server: Server, id_: str) -> list[str]:
    """The texts of a conversation, oldest first."""
    return texts(server.get(f"/conversations/{id_}/items", order="asc", limit=100)["data"])


class TestConversations:
    def test_create_retrieve_update_delete(self, server: Server) -> None:
        with server.client() as client:
            created = client.conversations.create(metadata={"a": "b"})
            retrieved = client.conversations.retrieve(created.id)
            updated = client.conversations.update(created.id, metadata={"c": "d"})
            deleted = client.conversations.delete(created.id)

        assert (created.object, created.metadata, created.id[:5]) == ("conversation", {"a": "b"}, "conv_")
        assert (retrieved, updated.metadata) == (created, {"c": "d"})
        assert deleted.to_dict() == {"id": created.id, "object": "conversation.deleted", "deleted": True}
        server.error("GET", f"/conversations/{created.id}", status=404)
        server.error("DELETE", f"/conversations/{created.id}", status=404)

    def test_an_empty_body_makes_an_empty_conversation(self, server: Server) -> None:
        created = server.post("/conversations", {})

        Conversation.model_validate(created)
        assert created["metadata"] == {}
        assert server.get(f"/conversations/{created['id']}/items") == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }

    def test_metadata_is_replaced_or_taken_away(self, server: Server) -> None:
        id_ = begin(server, metadata={"a": "b"})

        assert server.post(f"/conversations/{id_}", {"metadata": {"c": "d"}})["metadata"] == {"c": "d"}
        assert server.post(f"/conversations/{id_}", {"metadata": None})["metadata"] == {}

    def test_an_update_must_say_what(self, server: Server) -> None:
        assert server.error("POST", f"/conversations/{begin(server)}", {}, status=400)["param"] == "metadata"

    @pytest.mark.parametrize(
        "metadata",
        [{str(number): "x" for number in range(17)}, {"a" * 65: "x"}, {"a": "x" * 513}, {"a": 5}, "x", []],
    )
    def test_limits_of_metadata(self, server: Server, metadata: object) -> None:
        bodies: list[tuple[str, Json]] = [
            ("/conversations", {}),
            (f"/conversations/{begin(server)}", {}),
            ("/responses", {"model": MODEL, "input": "Hi"}),
        ]
        for path, body in bodies:
            error = server.error("POST", path, {**body, "metadata": metadata}, status=400)
            assert error["param"].startswith("metadata")

    def test_an_id_without_its_prefix(self, server: Server) -> None:
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/msg_1")):
            error = server.error(method, f"/conversations/thread_1{path}", status=400)
            assert ("conv_" in error["message"], error["param"]) == (True, "conversation_id")
        error = server.refused("Hi", conversation="thread_1")
        assert ("conv_" in error["message"], error["param"]) == (True, "conversation")

    def test_an_unknown_id(self, server: Server) -> None:
        id_ = f"conv_{uuid4().hex}"
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/msg_1")):
            assert id_ in server.error(method, f"/conversations/{id_}{path}", status=404)["message"]
        server.error("POST", f"/conversations/{id_}", {"metadata": {"a": "b"}}, status=404)
        server.error("POST", f"/conversations/{id_}/items", {"items": [message("Hi")]}, status=404)
        assert server.refused("Hi", conversation=id_, status=404)["param"] == "conversation"

    def test_somebody_elses_conversation_is_not_there(self, server: Server) -> None:
        id_ = begin(server, message("Hi"))
        (item,) = server.get(f"/conversations/{id_}/items")["data"]

        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", f"/items/{item['id']}")):
            server.error(method, f"/conversations/{id_}{path}", status=404, key=OTHER_KEY)
        body = {"model": MODEL, "input": "Hi", "conversation": id_}
        server.error("POST", "/responses", body, status=404, key=OTHER_KEY)

    def test_deleting_it_keeps_its_responses(self, server: Server) -> None:
        id_ = begin(server)
        response = server.create("My name is Ada.", conversation=id_)
        server.send("DELETE", f"/conversations/{id_}")

        assert server.get(f"/responses/{response['id']}")["id"] == response["id"]

    def test_they_are_listed_newest_first(self, server: Server) -> None:
        ids = [begin(server, metadata={"n": str(number)}) for number in range(5)]
        found = [each["id"] for page in pages(server, "/conversations", limit=2) for each in page["data"]]

        assert [id_ for id_ in found if id_ in ids] == ids[::-1]
        assert len(set(found)) == len(found)


class TestItems:
    def test_they_are_created_in_order_and_returned(self, server: Server) -> None:
        id_ = begin(server)
        with server.client() as client:
            items: Any = [message("one"), message("two", "assistant"), message("three")]
            created = client.conversations.items.create(id_, items=items)

        assert [item.id for item in created.data] == [
            item["id"] for item in server.get(f"/conversations/{id_}/items", order="asc")["data"]
        ]
        assert (created.first_id, created.last_id, created.has_more) == (created.data[0].id, created.data[2].id, False)
        assert shown(server, id_) == ["one", "two", "three"]

    def test_they_are_in_stored_form(self, server: Server) -> None:
        call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
        given = [message("Hi"), call, {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}]
        id_ = begin(server, *given, {"type": "reasoning", "summary": []}, message("Hello", "assistant"))
        page = server.get(f"/conversations/{id_}/items", order="asc")

        ConversationItemList.model_validate(page)
        for item in page["data"]:
            ITEM.validate_python(item)
            assert item["id"]
        assert [item.get("status") for item in page["data"]] == ["completed"] * 3 + [None, "completed"]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("count", [4, 5])
    def test_pages_follow_each_other_exactly(self, server: Server, order: str, count: int) -> None:
        id_ = begin(server, *[message(str(number)) for number in range(count)])
        found = [texts(page["data"]) for page in pages(server, f"/conversations/{id_}/items", order=order, limit=2)]

        joined = [text for page in found for text in page]
        assert joined == sorted(joined, reverse=order == "desc")
        assert [len(page) for page in found] == ([2, 2] if count == 4 else [2, 2, 1])

    def test_newest_first_unless_asked_otherwise(self, server: Server) -> None:
        id_ = begin(server, message("one"), message("two"))

        assert texts(server.get(f"/conversations/{id_}/items")["data"]) == ["two", "one"]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_the_sdk_pages_through_turns_and_items(self, server: Server, order: Any) -> None:
        id_ = begin(server, message("0"), message("1"))
        for number in (2, 3):
            server.create(str(number), conversation=id_)
        with server.client() as client:
            listed: SyncConversationCursorPage[ConversationItem] = client.conversations.items.list(
                id_, limit=1, order=order, include=["message.input_image.image_url"]
            )
            ids = [str(item.id) for item in listed]

        expected = [item["id"] for item in server.get(f"/conversations/{id_}/items", order=order)["data"]]
        assert ids == expected
        assert len(ids) == 6

    def test_one_is_retrieved(self, server: Server) -> None:
        id_ = begin(server, message("one"))
        answered = the(server.create("two", conversation=id_), "message")
        with server.client() as client:
            found = client.conversations.items.retrieve(answered["id"], conversation_id=id_)

        assert found.to_dict() == answered
        assert "msg_none" in server.error("GET", f"/conversations/{id_}/items/msg_none", status=404)["message"]

    def test_deleting_one_returns_the_conversation(self, server: Server) -> None:
        id_ = begin(server, message("one"), message("two"))
        first = server.get(f"/conversations/{id_}/items", order="asc")["data"][0]["id"]
        with server.client() as client:
            conversation = client.conversations.items.delete(first, conversation_id=id_)

        assert (conversation.id, conversation.object) == (id_, "conversation")
        assert shown(server, id_) == ["two"]
        server.error("DELETE", f"/conversations/{id_}/items/{first}", status=404)
        server.error("GET", f"/conversations/{id_}/items/{first}", status=404)

    def test_what_was_deleted_is_no_longer_known(self, server: Server) -> None:
        id_ = begin(server, message("My name is Ada."), message("My city is Bern."))
        first = server.get(f"/conversations/{id_}/items", order="asc")["data"][0]["id"]
        server.send("DELETE", f"/conversations/{id_}/items/{first}")

        assert text_of(server.create("What is my name?", conversation=id_)) == "You have not told me your name."

    def test_the_last_one_can_be_popped_again_and_again(self, server: Server) -> None:
        id_ = begin(server, *[message(str(number)) for number in range(3)])
        popped: list[str] = []
        while page := server.get(f"/conversations/{id_}/items", limit=1)["data"]:
            popped += texts(page)
            server.send("DELETE", f"/conversations/{id_}/items/{page[0]['id']}")

        assert popped == ["2", "1", "0"]

    def test_twenty_at_a_time(self, server: Server) -> None:
        many = [message(str(number)) for number in range(21)]
        id_ = begin(server)

        assert server.error("POST", "/conversations", {"items": many}, status=400)["param"] == "items"
        assert server.error("POST", f"/conversations/{id_}/items", {"items": many}, status=400)["param"] == "items"
        assert len(server.post(f"/conversations/{id_}/items", {"items": many[:20]})["data"]) == 20

    def test_none_at_a_time(self, server: Server) -> None:
        id_ = begin(server)
        bodies: list[Json] = [{}, {"items": []}]
        for body in bodies:
            assert server.error("POST", f"/conversations/{id_}/items", body, status=400)["param"] == "items"

    def test_an_item_that_is_there_already(self, server: Server) -> None:
        id_ = begin(server, {"id": "msg_mine", **message("one")})
        again = {"items": [{"id": "msg_mine", **message("one")}]}

        error = server.error("POST", f"/conversations/{id_}/items", again, status=400)

        assert error["message"].startswith("Item already in conversation")

    def test_duplicates_in_one_create(self, server: Server) -> None:
        item = {"id": "msg_twice", **message("one")}
        for path in ("/conversations", f"/conversations/{begin(server)}/items"):
            error = server.error("POST", path, {"items": [item, item]}, status=400)
            assert error["message"].startswith("Duplicate item found with id msg_twice")

    def test_a_reference_is_put_in_as_the_item_itself(self, server: Server) -> None:
        item = the(server.create("My name is Ada. What is my name?"), "message")
        by_type, bare = begin(server, {"type": "item_reference", "id": item["id"]}), begin(server)
        server.post(f"/conversations/{bare}/items", {"items": [{"id": item["id"]}]})

        assert [server.get(f"/conversations/{id_}/items")["data"] for id_ in (by_type, bare)] == [[item], [item]]
        missing = {"items": [{"type": "item_reference", "id": "msg_nothing"}]}
        server.error("POST", "/conversations", missing, status=404)
        server.error("POST", f"/conversations/{bare}/items", missing, status=404)

    def test_encrypted_reasoning_where_it_is_included(self, server: Server) -> None:
        id_ = begin(server)
        response = server.create("think: hm\nHello", conversation=id_)
        path = f"/conversations/{id_}/items"
        one = f"{path}/{the(response, 'reasoning')['id']}"
        include = {"include[]": "reasoning.encrypted_content"}

        assert "encrypted_content" not in server.get(one)
        assert server.get(one, **include)["encrypted_content"]
        assert [item for item in server.get(path, **include)["data"] if item.get("encrypted_content")]
        assert not [item for item in server.get(path)["data"] if item.get("encrypted_content")]

    def test_an_unknown_include(self, server: Server) -> None:
        path = f"/conversations/{begin(server)}/items"

        assert server.error("GET", path, status=400, params={"include[]": "everything"})["param"] == "include"

    def test_tool_calls_added_by_hand_are_answered(self, server: Server) -> None:
        call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
        id_ = begin(server, message("Weather?"), call)
        given = [{"type": "function_call_output", "call_id": "call_1", "output": "sunny"}]

        assert text_of(server.create(given, conversation=id_, tools=[WEATHER])) == "weather said: sunny"


class TestIdempotency:
    """The same request sent again with its key is answered as the first was."""

    @pytest.fixture
    def key(self) -> Json:
        return {"idempotency-key": uuid4().hex}

    def test_a_conversation_is_made_once(self, server: Server, key: Json) -> None:
        body = {"metadata": {"a": "b"}, "items": [message("one")]}
        first, second = (server.post("/conversations", body, **key) for _ in range(2))

        assert first == second
        assert shown(server, first["id"]) == ["one"]

    def test_another_body_under_its_key(self, server: Server, key: Json) -> None:
        server.post("/conversations", {"metadata": {"a": "b"}}, **key)

        error = server.error("POST", "/conversations", {}, status=422, headers=key)

        assert error["code"] == "idempotency_key_reused"

    def test_keys_of_others_are_other_keys(self, server: Server, key: Json) -> None:
        first = server.post("/conversations", {}, **key)
        second = server.send("POST", "/conversations", {}, headers=key, key=OTHER_KEY).json()

        assert first["id"] != second["id"]

    def test_items_are_added_once(self, server: Server, key: Json) -> None:
        id_ = begin(server, message("zero"))
        body = {"items": [message("one"), message("two")]}
        first = server.post(f"/conversations/{id_}/items", body, **key)
        server.create("three", conversation=id_)
        second = server.post(f"/conversations/{id_}/items", body, **key)

        assert first == second
        assert shown(server, id_)[:3] == ["zero", "one", "two"]
        assert shown(server, id_).count("one") == 1

    def test_other_items_under_their_key(self, server: Server, key: Json) -> None:
        id_ = begin(server)
        server.post(f"/conversations/{id_}/items", {"items": [message("one")]}, **key)
        other = {"items": [message("two")]}

        error = server.error("POST", f"/conversations/{id_}/items", other, status=422, headers=key)

        assert error["code"] == "idempotency_key_reused"

    def test_a_key_of_one_conversation_in_another(self, server: Server, key: Json) -> None:
        one, two = begin(server), begin(server)
        body = {"items": [message("one")]}
        server.post(f"/conversations/{one}/items", body, **key)

        error = server.error("POST", f"/conversations/{two}/items", body, status=422, headers=key)

        assert error["code"] == "idempotency_key_reused"

    @pytest.mark.parametrize("value", ["x" * 256, "a\tb"])
    def test_a_key_that_is_none(self, server: Server, value: str) -> None:
        for path, body in (
            ("/conversations", {}),
            (f"/conversations/{begin(server)}/items", {"items": [message("a")]}),
        ):
            error = server.error("POST", path, body, status=400, headers={"idempotency-key": value})
            assert error["param"] == "Idempotency-Key"


@pytest.fixture(scope="module")
def lists(server: Server) -> list[str]:
    """Where lists are."""
    conversation = begin(server, message("one"))
    response = server.create("Hi")["id"]
    return [
        f"/responses/{response}/input_items",
        f"/conversations/{conversation}/items",
        "/conversations",
        "/chat/completions",
    ]


class TestLists:
    @pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5"])
    def test_a_limit_out_of_range(self, server: Server, lists: list[str], limit: str) -> None:
        for path in lists:
            assert server.error("GET", path, status=400, params={"limit": limit})["param"] == "limit"

    def test_an_unknown_order(self, server: Server, lists: list[str]) -> None:
        for path in lists:
            assert server.error("GET", path, status=400, params={"order": "sideways"})["param"] == "order"

    def test_limits_in_range(self, server: Server, lists: list[str]) -> None:
        for path in lists:
            for limit in (1, 100):
                assert server.get(path, limit=limit)["object"] == "list"


class TestModels:
    def test_they_are_listed(self, server: Server) -> None:
        page = server.get("/models")

        assert page.keys() == {"object", "data"}
        assert page["object"] == "list"
        for each in page["data"]:
            Model.model_validate(each)
            assert {"id", "object", "created", "owned_by"} <= each.keys()
        assert page["data"][0]["id"] == MODEL

    def test_one_is_retrieved(self, server: Server) -> None:
        with server.client() as client:
            assert [client.models.retrieve(each.id).id for each in client.models.list()]

    @pytest.mark.parametrize("name", ["unheard-of", "some/model", "a%20b"])
    def test_an_unknown_one(self, server: Server, name: str) -> None:
        error = server.error("GET", f"/models/{name}", status=404)

        assert (error["code"], error["param"]) == ("model_not_found", "model")


class TestEmbeddings:
    EMBEDDER = "companion-embedding"

    def test_the_sdk_asks_for_base64_and_decodes_it(self, server: Server) -> None:
        with server.client() as client:
            by_default = client.embeddings.create(model=self.EMBEDDER, input="Hello")
            by_number = client.embeddings.create(model=self.EMBEDDER, input="Hello", encoding_format="float")

        assert by_default.data[0].embedding == pytest.approx(by_number.data[0].embedding, abs=1e-6)

    def test_base64_is_little_endian_float32(self, server: Server) -> None:
        body = {"model": self.EMBEDDER, "input": "Hello"}
        encoded = server.post("/embeddings", {**body, "encoding_format": "base64"})["data"][0]["embedding"]
        numbers = server.post("/embeddings", {**body, "encoding_format": "float"})["data"][0]["embedding"]
        raw = base64.b64decode(encoded)

        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(numbers, abs=1e-6)

    def test_numbers_unless_told_otherwise(self, server: Server) -> None:
        page = server.post("/embeddings", {"model": self.EMBEDDER, "input": "Hello"})

        assert page["object"] == "list"
        assert page["usage"].keys() == {"prompt_tokens", "total_tokens"}
        assert all(isinstance(number, float) for number in page["data"][0]["embedding"])

    @pytest.mark.parametrize(("given", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
    def test_texts_and_token_ids(self, server: Server, given: Any, count: int) -> None:
        page = server.post("/embeddings", {"model": self.EMBEDDER, "input": given})

        assert [each["index"] for each in page["data"]] == list(range(count))

    def test_dimensions(self, server: Server) -> None:
        page = server.post("/embeddings", {"model": self.EMBEDDER, "input": "Hello", "dimensions": 64})

        assert len(page["data"][0]["embedding"]) == 64

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"input": ""}, "input"),
            ({"input": []}, "input"),
            ({"input": {}}, "input"),
            ({"dimensions": 0}, "dimensions"),
            ({"encoding_format": "hex"}, "encoding_format"),
            ({"model": 5}, "model"),
        ],
    )
    def test_what_cannot_be_embedded(self, server: Server, fields: Json, param: str) -> None:
        body = {"model": self.EMBEDDER, "input": "Hello", **fields}

        assert server.error("POST", "/embeddings", body, status=400)["param"] == param

    def test_an_unknown_model(self, server: Server) -> None:
        body = {"model": "unheard-of", "input": "Hello"}

        assert server.error("POST", "/embeddings", body, status=404, key=KEY)["code"] == "model_not_found"
