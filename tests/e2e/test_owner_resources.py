"""What an owner has beside conversations: projects, links, feedback, search, changes, keys, use."""

from pathlib import Path

import pytest

from shared.clock import ManualClock
from shared.privacy.service import run_due
from shared.storage.base import STATE
from tests.owners import ANN, BOB, ask, conversation, service


async def test_a_project_groups_conversations(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        project = (await ann.post("/v1/projects", json={"name": "Garden"})).json()
        inside = await conversation(ann, project=project["id"])
        await conversation(ann)

        listed = (await ann.get("/v1/conversations", params={"project": project["id"]})).json()
        renamed = (await ann.post(f"/v1/projects/{project['id']}", json={"name": "Yard"})).json()
        gone = await ann.delete(f"/v1/projects/{project['id']}")
        missing = await ann.get(f"/v1/projects/{project['id']}")

    assert [each["id"] for each in listed["data"]] == [inside]
    assert renamed["name"] == "Yard"
    assert (gone.status_code, missing.status_code) == (200, 404)


async def test_a_project_tells_the_model_its_instructions_where_the_caller_gives_none(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        body = {"name": "Garden", "instructions": "Speak of plants."}
        project = (await ann.post("/v1/projects", json=body)).json()
        conv = await conversation(ann, project=project["id"])
        silent = await ask(ann, "Hello.", conversation=conv)
        spoken = await ask(ann, "Hello.", conversation=conv, instructions="Be brief.")
        await ann.delete(f"/v1/projects/{project['id']}")
        gone = await ask(ann, "Hello.", conversation=conv)

    assert [each["instructions"] for each in (silent, spoken, gone)] == ["Speak of plants.", "Be brief.", None]


async def test_archived_conversations_leave_the_list_and_pinned_ones_can_be_asked_for(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        kept, away = await conversation(ann), await conversation(ann)
        await ann.post(f"/v1/conversations/{away}", json={"archived": True})
        await ann.post(f"/v1/conversations/{kept}", json={"pinned": True})

        plain = (await ann.get("/v1/conversations")).json()["data"]
        archived = (await ann.get("/v1/conversations", params={"archived": "true"})).json()["data"]
        pinned = (await ann.get("/v1/conversations", params={"pinned": "true"})).json()["data"]

    assert [each["id"] for each in plain] == [each["id"] for each in pinned] == [kept]
    assert [each["id"] for each in archived] == [away]


async def test_search_finds_words_in_titles_and_texts_of_ones_own(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann, here.client(BOB) as bob:
        titled, said = await conversation(ann), await conversation(ann)
        await ann.post(f"/v1/conversations/{titled}", json={"title": "Growing Tomatoes at home"})
        turn = await ask(ann, "Do tomatoes need much water at noon?", conversation=said)
        await ask(ann, "Something else.", conversation=await conversation(ann))

        found = (await ann.get("/v1/conversations", params={"query": "TOMATOES"})).json()
        theirs = (await bob.get("/v1/conversations", params={"query": "tomatoes"})).json()

    assert [(each["id"], each["match"]["in"]) for each in found["data"]] == [(titled, "title"), (said, "text")]
    assert found["data"][1]["match"]["response"] == turn["id"]
    assert (found["has_more"], found["next_after"]) == (False, None)
    assert theirs["data"] == []


async def test_search_finds_nothing_in_items_that_were_deleted(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        said = [{"role": "user", "content": "A secret about zebras."}, {"role": "user", "content": "And zebus."}]
        items = (await ann.post(f"/v1/conversations/{conv}/items", json={"items": said})).json()["data"]
        await ann.delete(f"/v1/conversations/{conv}/items/{items[0]['id']}")
        gone = (await ann.get("/v1/conversations", params={"query": "zebras"})).json()["data"]
        left = (await ann.get("/v1/conversations", params={"query": "zebus"})).json()["data"]

    assert gone == []
    assert [each["id"] for each in left] == [conv]
    assert "zebras" not in left[0]["match"]["snippet"]


async def test_a_fork_is_no_part_of_the_conversation_it_grew_from(tmp_path: Path) -> None:
    """Be it deleted or not: it is in no search of it, and none of its turns."""
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        first = await ask(ann, "About plums.", conversation=conv)
        fork = await ask(ann, "A secret about zebras.", previous_response_id=first["id"])
        await ask(ann, "And more of it.", previous_response_id=fork["id"])
        last = await ask(ann, "About figs.", conversation=conv)
        found = (await ann.get("/v1/conversations", params={"query": "zebras"})).json()["data"]
        pages = [(await ann.get(f"/v1/conversations/{conv}/turns", params={"limit": 1})).json()]
        pages += [(await ann.get(f"/v1/conversations/{conv}/turns", params={"limit": 1, "after": first["id"]})).json()]

    assert found == []
    assert [page["data"][0]["id"] for page in pages] == [first["id"], last["id"]]
    assert [page["has_more"] for page in pages] == [True, False]


async def test_a_search_that_stops_early_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        ids = [await conversation(ann) for _ in range(5)]
        for id_ in ids:
            await ann.post(f"/v1/conversations/{id_}", json={"title": "a fig"})
        listed = [each["id"] for each in (await ann.get("/v1/conversations")).json()["data"]]
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            params = {"query": "fig", "limit": 2, "after": after}
            page = (await ann.get("/v1/conversations", params=params)).json()
            found += [each["id"] for each in page["data"]]
            after = page["next_after"]

    assert found == listed
    assert sorted(found) == sorted(ids)


async def test_a_link_shows_what_was_said_and_nothing_else_until_it_is_revoked(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann, here.client(None) as anybody:
        conv = await conversation(ann, metadata={"secret": "canary-metadata"})
        turn = await ask(ann, "Hello there.", conversation=conv, instructions="canary-instructions")
        share = (await ann.post("/v1/shares", json={"conversation": conv})).json()
        await ask(ann, "Said later.", conversation=conv)
        shown = await anybody.get(share["path"])
        await ann.delete(f"/v1/shares/{share['id']}")
        revoked = await anybody.get(share["path"])

    assert shown.status_code == 200
    assert [item["role"] for item in shown.json()["items"]] == ["user", "assistant"]
    for leak in ("ann", conv, turn["id"], "canary", "Said later"):
        assert leak not in shown.text
    assert revoked.status_code == 404


async def test_a_conversation_that_is_deleted_while_a_link_to_it_is_made_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as here, here.client() as ann, here.client(None) as anybody:
        conv = await conversation(ann)
        await ask(ann, "Hello there.", conversation=conv)
        put, made = here.app.blobs.put, list[str]()

        async def put_late(owner: str, name: str, data: bytes, *, content_type: str) -> None:
            made.append(name)
            await ann.delete(f"/v1/conversations/{conv}")
            await put(owner, name, data, content_type=content_type)

        monkeypatch.setattr(here.app.blobs, "put", put_late)  # the one place to come in between
        share = await ann.post("/v1/shares", json={"conversation": conv})
        shown = await anybody.get(f"/v1/shared/{made[0]}")
        links = (await ann.get("/v1/shares")).json()["data"]
        left = await here.app.blobs.get("ann", made[0])

    assert (share.status_code, shown.status_code) == (404, 404)
    assert (links, left) == ([], None)


async def test_an_erasure_while_a_link_is_made_leaves_no_trace_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        await ask(ann, "Hello there.", conversation=conv)
        put = here.app.blobs.put

        async def put_late(owner: str, name: str, data: bytes, *, content_type: str) -> None:
            await here.app.store.erase(STATE, owner)
            await put(owner, name, data, content_type=content_type)

        monkeypatch.setattr(here.app.blobs, "put", put_late)  # the one place to come in between
        share = await ann.post("/v1/shares", json={"conversation": conv})
        left = [stored.body for stored in await here.app.store.scan(STATE, "ann")]

    assert share.status_code == 404
    assert left == []


async def test_the_links_of_one_conversation_are_listed_alone(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        convs = [await conversation(ann), await conversation(ann)]
        for conv in convs:
            await ask(ann, "Hello there.", conversation=conv)
        made = [(await ann.post("/v1/shares", json={"conversation": conv})).json()["id"] for conv in convs]
        found = (await ann.get("/v1/shares", params={"conversation": convs[0]})).json()["data"]

    assert [share["id"] for share in found] == made[:1]


async def test_what_is_not_found_is_named_as_it_was_sent(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        share = await ann.post("/v1/shares", json={"conversation": "conv_nothing"})
        feedback = await ann.post("/v1/feedback", json={"response": "resp_nothing", "rating": "up"})

    assert (share.status_code, share.json()["error"]["param"]) == (404, "conversation")
    assert (feedback.status_code, feedback.json()["error"]["param"]) == (404, "response")


async def test_a_cursor_that_is_unknown_is_named_as_the_parameter_at_fault(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        turn = await ask(ann, "Hello there.", conversation=conv)
        empty = await conversation(ann)
        lists = ["conversations", "projects", "feedback", "shares", "chat/completions"]
        lists += [f"conversations/{id_}/{name}" for id_ in (conv, empty) for name in ("items", "turns")]
        lists += [f"responses/{turn['id']}/input_items"]
        answers = [await ann.get(f"/v1/{name}", params={"after": "nothing"}) for name in lists]

    assert {each.status_code for each in answers} == {404}
    assert [each.json()["error"]["param"] for each in answers] == ["after"] * len(lists)


async def test_a_link_cannot_be_guessed_from_its_owner_and_a_weak_idempotency_key(tmp_path: Path) -> None:
    ids: list[str] = []
    for place in ("one", "two"):
        async with service(tmp_path / place) as here, here.client() as ann:
            conv = await conversation(ann)
            await ask(ann, "Hello there.", conversation=conv)
            for _ in range(2):
                made = await ann.post("/v1/shares", json={"conversation": conv}, headers={"idempotency-key": "1"})
                ids.append(made.json()["id"])

    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert ids[0] != ids[2]


async def test_deleting_a_conversation_revokes_its_links(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann, here.client(None) as anybody:
        conv = await conversation(ann)
        await ask(ann, "Hello there.", conversation=conv)
        share = (await ann.post("/v1/shares", json={"conversation": conv})).json()
        await ann.delete(f"/v1/conversations/{conv}")

        assert (await anybody.get(share["path"])).status_code == 404


async def test_all_links_end_with_their_conversation_however_many(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann, here.client(None) as anybody:
        await ann.post("/v1/me", json={"retention_days": 30})
        deleted, old = await conversation(ann), await conversation(ann)
        paths: list[str] = []
        for conv, count in ((deleted, 103), (old, 1)):
            await ask(ann, "Hello there.", conversation=conv)
            made = [await ann.post("/v1/shares", json={"conversation": conv}) for _ in range(count)]
            paths += [share.json()["path"] for share in made]
        await ann.delete(f"/v1/conversations/{deleted}")
        clock.advance(31 * 86_400)
        await run_due(here.app)
        left = [path for path in paths if (await anybody.get(path)).status_code != 404]

    assert left == []


async def test_feedback_is_one_per_response(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        turn = await ask(ann, "Hello.")
        await ann.post("/v1/feedback", json={"response": turn["id"], "rating": "up"})
        await ann.post("/v1/feedback", json={"response": turn["id"], "rating": "down", "comment": "Too short."})
        listed = (await ann.get("/v1/feedback")).json()["data"]

    assert [(each["rating"], each["comment"]) for each in listed] == [("down", "Too short.")]


@pytest.mark.parametrize("is_in_conversation", [False, True])
async def test_feedback_goes_with_its_response(tmp_path: Path, is_in_conversation: bool) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        place = {"conversation": await conversation(ann)} if is_in_conversation else {}
        turn = await ask(ann, "Hello.", **place)
        body = {"response": turn["id"], "rating": "down", "comment": "private"}
        feedback = (await ann.post("/v1/feedback", json=body)).json()
        await ann.delete(f"/v1/responses/{turn['id']}")
        gone = await ann.get(f"/v1/feedback/{feedback['id']}")
        listed = (await ann.get("/v1/feedback")).json()["data"]

    assert (gone.status_code, listed) == (404, [])


async def test_the_changes_tell_of_deleted_responses_that_others_are_built_on(tmp_path: Path) -> None:
    """Deleted one by one, or with their conversation: what is kept of them is for their forks alone."""
    async with service(tmp_path, COMPANION_UNDO_DAYS="0") as here, here.client() as ann:
        conv = await conversation(ann)
        first = await ask(ann, "About plums.", conversation=conv)
        fork = await ask(ann, "About zebras.", previous_response_id=first["id"])
        last = await ask(ann, "And more of it.", previous_response_id=fork["id"])
        await ann.delete(f"/v1/responses/{fork['id']}")
        await ann.delete(f"/v1/conversations/{conv}")
        await here.run_jobs()
        changes = (await ann.get("/v1/changes", params={"limit": 100})).json()["data"]
        history = await ask(ann, "What did I say?", previous_response_id=last["id"])

    gone = {each["id"] for each in changes if each["object"] == "deletion"}
    assert gone == {conv, first["id"], fork["id"]}
    assert {each["id"] for each in changes if each["object"] == "conversation.turn"} == {last["id"]}
    assert history["status"] == "completed"


async def test_a_temporary_conversation_is_in_no_list_search_or_change(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        conv = await conversation(ann, temporary=True)
        turn = await ask(ann, "A fleeting plum.", conversation=conv)
        alive = await ann.get(f"/v1/conversations/{conv}")
        listed = (await ann.get("/v1/conversations")).json()["data"]
        found = (await ann.get("/v1/conversations", params={"query": "plum"})).json()["data"]
        changes = (await ann.get("/v1/changes")).text
        clock.advance(86_400 + 60)
        later = [await ann.get(f"/v1/conversations/{conv}"), await ann.get(f"/v1/responses/{turn['id']}")]

    assert alive.json()["temporary"]
    assert listed == found == []
    assert conv not in changes
    assert turn["id"] not in changes
    assert [each.status_code for each in later] == [404, 404]


async def test_the_changes_tell_of_a_conversations_turns_until_it_is_gone_for_good(tmp_path: Path) -> None:
    """So a client that keeps the turns of a deleted conversation has them when it is restored."""
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        seen: list[list[tuple[str, str]]] = []
        token = ""

        async def follow() -> None:
            nonlocal token
            answer = (await ann.get("/v1/changes", params={"since": token, "limit": 100})).json()
            token = answer["token"]
            seen.append(sorted((each["object"], each["id"]) for each in answer["data"]))

        conv = await conversation(ann)
        turn = await ask(ann, "About plums.", conversation=conv)
        alone = await ask(ann, "About zebras.")
        whole = (await ann.get("/v1/changes")).json()["data"]
        await follow()
        for change in (ann.delete(f"/v1/conversations/{conv}"), ann.post(f"/v1/conversations/{conv}/restore")):
            await change
            await follow()
        await ann.delete(f"/v1/conversations/{conv}")
        clock.advance(8 * 86_400)
        await run_due(here.app)
        await follow()

    named = {each["id"]: each["conversation"] for each in whole if each["object"] == "conversation.turn"}
    assert named == {turn["id"]: conv, alone["id"]: None}
    assert seen[1:3] == [[("deletion", conv)], [("conversation", conv)]]
    assert {("deletion", conv), ("deletion", turn["id"])} <= set(seen[3])


@pytest.mark.parametrize("days", ["0", "7"])
async def test_what_is_temporary_is_in_no_change_either_once_it_is_deleted(tmp_path: Path, days: str) -> None:
    """Hidden, to be restored; or purged, with a fork that goes on from a part of it."""
    async with service(tmp_path, COMPANION_UNDO_DAYS=days) as here, here.client() as ann:
        conv = await conversation(ann, temporary=True)
        first, second = [await ask(ann, "A fleeting plum.", conversation=conv) for _ in range(2)]
        forks = [await ask(ann, "Say it again.", previous_response_id=first["id"]) for _ in range(2)]
        for turn in (first, second, forks[0]):
            await ann.post("/v1/feedback", json={"response": turn["id"], "rating": "up"})
        paths = [f"feedback/feedback_{first['id'].removeprefix('resp_')}", f"responses/{forks[0]['id']}"]
        gone = [(await ann.delete(f"/v1/{path}")).status_code for path in (*paths, f"conversations/{conv}")]
        changes = (await ann.get("/v1/changes")).json()["data"]

    assert gone == [200, 200, 200]
    assert changes == []


async def test_what_grows_from_a_temporary_conversation_is_temporary(tmp_path: Path) -> None:
    """Also where it is gone on from outside of it, or commented on."""
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        turn = await ask(ann, "A fleeting plum.", conversation=await conversation(ann, temporary=True))
        on = await ask(ann, "Say it again.", previous_response_id=turn["id"])
        further = await ask(ann, "And again.", previous_response_id=on["id"])
        comment = {"response": turn["id"], "rating": "up", "comment": "A plum!"}
        feedback = (await ann.post("/v1/feedback", json=comment)).json()["id"]
        changes = (await ann.get("/v1/changes")).json()["data"]
        clock.advance(86_400 + 60)
        paths = [f"/v1/responses/{each['id']}" for each in (on, further)] + [f"/v1/feedback/{feedback}"]
        later = [(await ann.get(path)).status_code for path in paths]

    assert changes == []
    assert later == [404, 404, 404]


async def test_a_temporary_conversation_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="companion")
    async with service(tmp_path) as here, here.client() as ann:
        plain = await ask(ann, "Hello.", conversation=await conversation(ann))
        fleeting = await ask(ann, "Hello.", conversation=await conversation(ann, temporary=True))
    told = [record.__dict__.get("response_id") for record in caplog.records if record.name.startswith("companion")]

    assert plain["id"] in told
    assert fleeting["id"] not in told


async def test_a_deleted_conversation_can_be_restored_for_a_week_and_then_is_gone(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        conv = await conversation(ann)
        turn = await ask(ann, "Hello.", conversation=conv)
        await ann.delete(f"/v1/conversations/{conv}")
        hidden = await ann.get(f"/v1/conversations/{conv}")
        refused = await ann.post("/v1/responses", json={"input": "Still there?", "conversation": conv})
        restored = await ann.post(f"/v1/conversations/{conv}/restore")
        items = (await ann.get(f"/v1/conversations/{conv}/items")).json()["data"]
        await ann.delete(f"/v1/conversations/{conv}")
        clock.advance(8 * 86_400)
        await run_due(here.app)
        late = await ann.post(f"/v1/conversations/{conv}/restore")
        response = await ann.get(f"/v1/responses/{turn['id']}")

    assert (hidden.status_code, refused.status_code, restored.status_code) == (404, 404, 200)
    assert len(items) == 2
    assert (late.status_code, response.status_code) == (404, 404)


async def test_two_clients_that_follow_the_changes_have_the_same_copy(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        copies: list[dict[str, object]] = [{}, {}]
        tokens = ["", ""]

        async def catch_up(place: int, limit: int) -> None:
            while True:
                params = {"since": tokens[place], "limit": limit}
                changes = (await ann.get("/v1/changes", params=params)).json()
                for each in changes["data"]:
                    if each["object"] == "deletion":
                        copies[place].pop(each["id"], None)
                    else:
                        copies[place][each["id"]] = each
                tokens[place] = changes["token"]
                if not changes["has_more"]:
                    return

        convs = [await conversation(ann) for _ in range(3)]
        await catch_up(0, 1)
        await ask(ann, "Hello.", conversation=convs[0])
        single = await ask(ann, "Alone.")
        project = (await ann.post("/v1/projects", json={"name": "Garden"})).json()
        await catch_up(0, 100)
        await ann.delete(f"/v1/conversations/{convs[1]}")
        await ann.delete(f"/v1/responses/{single['id']}")
        await ann.delete(f"/v1/projects/{project['id']}")
        await ann.post("/v1/me", json={"name": "Ann"})
        kept = (await ann.post("/v1/shares", json={"conversation": convs[0]})).json()
        revoked = (await ann.post("/v1/shares", json={"conversation": convs[0]})).json()
        await catch_up(0, 2)
        await ann.delete(f"/v1/shares/{revoked['id']}")
        await catch_up(0, 2)
        await catch_up(1, 100)

    assert copies[0] == copies[1]
    assert {convs[0], convs[2], kept["id"], "ann"} <= copies[0].keys()
    assert not {convs[1], single["id"], project["id"], revoked["id"]} & copies[0].keys()


@pytest.mark.parametrize("token", ["1", "x", "x.1.1", "a" * 5000, "ünï.1.1", "..", "0.0.0"])
async def test_a_token_that_is_not_ours_is_refused(tmp_path: Path, token: str) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        answer = await ann.get("/v1/changes", params={"since": token})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "token_expired")


async def test_a_token_of_anothers_or_of_before_an_erasure_is_refused(tmp_path: Path) -> None:
    """Nothing can be said of what changed since: a client that begins again has the same copy as all others."""
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann, here.client(BOB) as bob:
        await conversation(ann)
        token = (await ann.get("/v1/changes")).json()["token"]
        stolen = await bob.get("/v1/changes", params={"since": token})
        clock.advance(29 * 86_400)
        good = await ann.get("/v1/changes", params={"since": token})
        clock.advance(2 * 86_400)
        old = await ann.get("/v1/changes", params={"since": token})
        newer = good.json()["token"]
        await ann.post("/v1/me/erase", json={"confirm": "erase everything"})
        await here.run_jobs()
        erased = await ann.get("/v1/changes", params={"since": newer})
        again = await ann.get("/v1/changes")

    assert [each.status_code for each in (stolen, good, old, erased, again)] == [400, 200, 400, 400, 200]
    assert again.json()["data"] == []


async def test_an_api_key_works_within_its_scopes_until_it_is_revoked(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        made = (await ann.post("/v1/api_keys", json={"name": "script", "scopes": ["read"]})).json()
        async with here.client(made["key"]) as reader:
            read = await reader.get("/v1/conversations")
            wrote = await reader.post("/v1/conversations", json={})
            made_more = await reader.post("/v1/api_keys", json={"name": "more"})
            listed = (await ann.get("/v1/api_keys")).json()["data"]
            await ann.delete(f"/v1/api_keys/{made['id']}")
            revoked = await reader.get("/v1/conversations")

    assert (read.status_code, wrote.status_code, made_more.status_code) == (200, 403, 403)
    assert [each["id"] for each in listed] == [made["id"]]
    assert "key" not in listed[0]
    assert revoked.status_code == 401


async def test_use_is_shown_by_day_and_model_in_tokens_and_money(tmp_path: Path) -> None:
    prices = '{"companion": {"input": 1000, "output": 2000}}'
    async with service(tmp_path, COMPANION_PRICES=prices) as here, here.client() as ann:
        turn = await ask(ann, "Hello.")
        usage = (await ann.get("/v1/me/usage")).json()

    (day,) = usage["days"]
    (model,) = day["models"]
    tokens = turn["usage"]
    cost = (tokens["input_tokens"] * 1000 + tokens["output_tokens"] * 2000) / 1_000_000
    assert (model["model"], model["turns"], model["input_tokens"]) == ("companion", 1, tokens["input_tokens"])
    assert abs(model["cost"] - cost) < 1e-9
    assert usage["total"]["cost"] == model["cost"]


async def test_only_an_operator_sees_everybodys_use(tmp_path: Path) -> None:
    async with (
        service(tmp_path, COMPANION_OPERATORS="ann") as here,
        here.client(ANN) as ann,
        here.client(BOB) as bob,
    ):
        await ask(bob, "Hello.")
        await ask(ann, "Hello, and rather many more words than his, so that it costs the more.")
        seen, refused = await ann.get("/v1/admin/usage"), await bob.get("/v1/admin/usage")
        pages = [
            (await ann.get("/v1/admin/usage", params={"limit": 1, "after": after})).json() for after in ("", "ann")
        ]
        unknown = await ann.get("/v1/admin/usage", params={"after": "nobody"})
        before = await ann.get("/v1/admin/usage", params={"month": "2020-01"})

    assert sorted(each["owner"] for each in seen.json()["data"]) == ["ann", "bob"]
    assert [(page["data"][0]["owner"], page["has_more"]) for page in pages] == [("ann", True), ("bob", False)]
    assert refused.status_code == 403
    assert unknown.status_code == 400
    assert before.json()["data"] == []


async def test_answers_say_what_a_browser_may_do_with_them(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        await ask(ann, "Hello.", conversation=conv)
        share = (await ann.post("/v1/shares", json={"conversation": conv})).json()
        plain = await ann.get("/v1/models")
        secure = await ann.get("/v1/models", headers={"x-forwarded-proto": "https"})
        stream = await ann.post("/v1/responses", json={"input": "Hello.", "stream": True})
        refused = await ann.get("/v1/conversations/conv_x")
        page, shown = await ann.get("/s/x"), await ann.get(share["path"])

    for answer in (plain, secure, stream, refused, page, shown):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert secure.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in plain.headers
    assert page.headers["x-robots-tag"] == shown.headers["x-robots-tag"] == "noindex"
    assert page.headers["content-type"].startswith("text/html")


async def test_pages_of_listed_origins_may_call_and_others_may_not(tmp_path: Path) -> None:
    async with service(tmp_path, COMPANION_CORS_ORIGINS="https://app.example") as here, here.client() as ann:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        preflight = await ann.options("/v1/responses", headers=asked)
        allowed = await ann.get("/v1/models", headers={"origin": "https://app.example"})
        other = await ann.get("/v1/models", headers={"origin": "https://evil.example"})
        other_preflight = await ann.options("/v1/responses", headers={**asked, "origin": "https://evil.example"})

    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers
    assert other_preflight.status_code == 405
