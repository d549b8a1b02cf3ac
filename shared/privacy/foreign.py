"""Exports of other assistants: ChatGPT's and Claude's `conversations.json` as conversations and turns of ours."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

from shared.conversations.records import ConversationRecord, Record, TurnRecord, header_sort, sort_key
from shared.errors import InvalidRequest
from shared.ids import derived_token, item_id

type Json = dict[str, Any]

MAX_MESSAGES = 20_000
"""Of one conversation."""


class _Said:
    """One message, and what answers it."""

    __slots__ = ("at", "children", "key", "role", "text")

    def __init__(self, key: str, role: str, text: str, at: float) -> None:
        self.key = key
        self.role = role
        self.text = text
        self.at = at
        self.children: list[_Said] = []


def foreign_records(data: object, owner: str, *, now: float) -> list[Record]:
    """Records of whichever of the two formats this is. The same file again gives the same ids.

    Raises:
        InvalidRequest: it is neither.
    """
    found = _objects(data)
    if not isinstance(data, list) or not found:
        raise InvalidRequest("The file is no export of ChatGPT, Claude or Companion.", code="invalid_archive")
    records: list[Record] = []
    for each in found:
        if isinstance(each.get("mapping"), dict):
            roots, current = _chatgpt(each)
            source, key = "chatgpt", each.get("conversation_id") or each.get("id") or each.get("title")
            title, created = each.get("title"), _seconds(each.get("create_time"), now)
            updated = _seconds(each.get("update_time"), created)
        elif isinstance(each.get("chat_messages"), list):
            roots, current = _claude(each)
            source, key = "claude", each.get("uuid")
            title, created = each.get("name"), _seconds(each.get("created_at"), now)
            updated = _seconds(each.get("updated_at"), created)
        else:
            raise InvalidRequest("A conversation of the file is of an unknown form.", code="invalid_archive")
        token = derived_token(owner, source, str(key), str(created))
        records += _conversation(token, title, created=created, updated=updated, roots=roots, current=current)
    return records


def _conversation(
    token: str, title: object, *, created: float, updated: float, roots: list[_Said], current: str | None
) -> Iterator[Record]:
    id_ = f"conv_{token}"
    turns, head = _turns(id_, token, roots, current)
    yield from turns
    yield ConversationRecord(
        id=id_,
        sort=header_sort(updated, token),
        created_at=created,
        updated_at=updated,
        title=title[:200] if isinstance(title, str) and title.strip() else None,
        head=head,
    )


def _turns(
    conversation: str, token: str, roots: list[_Said], current: str | None
) -> tuple[list[TurnRecord], str | None]:
    """A turn for what the user said up to the end of the answer; where the file branches, so do the turns.

    Returns:
        The turns, and the one that ends the branch shown.
    """
    turns: list[TurnRecord] = []
    head: str | None = None
    waiting: list[tuple[_Said, TurnRecord | None, bool]] = [(root, None, False) for root in reversed(roots)]
    while waiting:
        first, parent, is_branch = waiting.pop()
        asked, answered, last = _exchange(first)
        turn_token = derived_token(token, first.key)
        depth = parent.depth + 1 if parent else 0
        is_new_branch = parent is None or is_branch
        turn = TurnRecord(
            id=f"resp_{turn_token}",
            group=conversation,
            sort=sort_key(depth, turn_token),
            depth=depth,
            parent=parent.id if parent else None,
            conversation=conversation,
            branch=turn_token if parent is None or is_new_branch else parent.branch,
            lineage=_lineage(parent, is_new_branch=is_new_branch),
            surface="responses" if answered else "items",
            is_stored=False,
            status="completed",
            created_at=first.at,
            completed_at=last.at,
            params={"model": "imported"},
            input=[_item(said, turn_token, "i", index) for index, said in enumerate(asked)],
            output=[_item(said, turn_token, "o", index) for index, said in enumerate(answered)],
        )
        turns.append(turn)
        if head is None or current in {said.key for said in (*asked, *answered)}:
            head = turn.id
        waiting += [(child, turn, index > 0) for index, child in enumerate(last.children)][::-1]
    if current is None and turns:
        head = turns[-1].id
    return turns, head


def _lineage(parent: TurnRecord | None, *, is_new_branch: bool) -> list[tuple[str, int]]:
    if parent is None:
        return []
    return [*parent.lineage, (parent.branch, parent.depth)] if is_new_branch else parent.lineage


def _exchange(first: _Said) -> tuple[list[_Said], list[_Said], _Said]:
    """From one message as far as it goes without a branch or another question: what was asked, answered, said last."""
    asked: list[_Said] = []
    answered: list[_Said] = []
    said = first
    while True:
        (answered if said.role == "assistant" else asked).append(said)
        following = said.children[0] if len(said.children) == 1 else None
        if following is None or (answered and following.role != "assistant"):
            return asked, answered, said
        said = following


def _item(said: _Said, token: str, side: str, index: int) -> Json:
    text: Json = {"type": "input_text", "text": said.text}
    if said.role == "assistant":
        text = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    return {
        "id": item_id("msg", token, side, index),
        "type": "message",
        "status": "completed",
        "role": said.role,
        "content": [text],
    }


def _chatgpt(body: Json) -> tuple[list[_Said], str | None]:
    """The tree of `mapping`, less what was hidden, empty or said by tools; and the node that was shown."""
    nodes = {key: cast(Json, node) for key, node in body["mapping"].items() if isinstance(node, dict)}
    if len(nodes) > MAX_MESSAGES:
        raise InvalidRequest("A conversation of the file has too many messages.", code="invalid_archive")
    said = {key: found for key, node in nodes.items() if (found := _chatgpt_said(key, node.get("message")))}
    roots: list[_Said] = []
    for key, node in nodes.items():
        if key not in said:
            continue
        parent, seen = node.get("parent"), {key}
        while isinstance(parent, str) and parent in nodes and parent not in said and parent not in seen:
            seen.add(parent)
            parent = nodes[parent].get("parent")
        if isinstance(parent, str) and parent in said and parent not in seen:
            said[parent].children.append(said[key])
        else:
            roots.append(said[key])
    current, seen = body.get("current_node"), set[str]()
    while isinstance(current, str) and current not in said and current in nodes and current not in seen:
        seen.add(current)
        current = nodes[current].get("parent")
    return roots, current if isinstance(current, str) and current in said else None


def _chatgpt_said(key: str, message: object) -> _Said | None:
    if not isinstance(message, dict):
        return None
    body = cast(Json, message)
    author, content = _object(body.get("author")), _object(body.get("content"))
    parts = content.get("parts")
    texts = [part for part in cast(list[Any], parts) if isinstance(part, str)] if isinstance(parts, list) else []
    text = "\n".join(filter(None, texts))
    if author.get("role") not in ("user", "assistant") or not text.strip():
        return None
    return _Said(key, author["role"], text, _seconds(body.get("create_time"), 0.0))


def _claude(body: Json) -> tuple[list[_Said], str | None]:
    """One line of messages, oldest first."""
    first: _Said | None = None
    last: _Said | None = None
    messages = _objects(body["chat_messages"])
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest("A conversation of the file has too many messages.", code="invalid_archive")
    for index, message in enumerate(messages):
        parts = [part["text"] for part in _objects(message.get("content")) if isinstance(part.get("text"), str)]
        plain = message.get("text")
        text = "\n".join(parts) or (plain if isinstance(plain, str) else "")
        role = {"human": "user", "assistant": "assistant"}.get(str(message.get("sender")))
        if role is None or not text.strip():
            continue
        said = _Said(f"{index}:{message.get('uuid')}", role, text, _seconds(message.get("created_at"), 0.0))
        if last is None:
            first = said
        else:
            last.children.append(said)
        last = said
    return [first] if first else [], last.key if last else None


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[Json]:
    return (
        [cast(Json, each) for each in cast(list[Any], value) if isinstance(each, dict)]
        if isinstance(value, list)
        else []
    )


def _seconds(value: object, otherwise: float) -> float:
    """Epoch seconds of a number or an ISO date, as far as our own records can have them."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return otherwise
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10**11:
        return float(value)
    return otherwise
