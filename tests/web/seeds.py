"""Conversations that would take too long to hold, written as the server itself stores them."""

import time
from collections.abc import Sequence
from pathlib import Path

from shared.bootstrap import build_app
from shared.conversations.records import ConversationRecord, TurnRecord, header_sort, sort_key
from shared.ids import item_id
from shared.settings import Settings
from shared.storage.base import STATE, Create
from shared.wire.responses import CreateResponse, effective_params, render_usage

BATCH = 90

ANSWER = """Answer {number}, with **bold** words and `code`.

- one
- two

```python
print({number})
```
"""


def long_conversation(owner: str, turns: int) -> list[ConversationRecord | TurnRecord]:
    """A conversation of so many turns: `question 1`, its answer, and so on."""
    now = time.time()
    tokens = [f"{number:032x}" for number in range(1, turns + 1)]
    id_ = f"conv_{owner.encode().hex():0>32.32}"
    params = effective_params(CreateResponse(model="companion"), model="companion")
    usage = render_usage(input_tokens=5, cached_tokens=0, cache_write_tokens=0, output_tokens=9, reasoning_tokens=0)
    records: list[ConversationRecord | TurnRecord] = [
        ConversationRecord(
            id=id_,
            sort=header_sort(now, id_[5:]),
            created_at=now,
            updated_at=now,
            title="A long conversation",
            head=f"resp_{tokens[-1]}",
        )
    ]
    for depth, token in enumerate(tokens):
        number = depth + 1
        question = {"type": "input_text", "text": f"question {number}"}
        text = ANSWER.format(number=number)
        answer: dict[str, object] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        common = {"type": "message", "status": "completed"}
        records.append(
            TurnRecord(
                id=f"resp_{token}",
                group=id_,
                sort=sort_key(depth, token),
                depth=depth,
                parent=f"resp_{tokens[depth - 1]}" if depth else None,
                conversation=id_,
                branch=tokens[0],
                status="completed",
                created_at=now,
                completed_at=now,
                params=params,
                input=[{"id": item_id("msg", token, "i", 0), **common, "role": "user", "content": [question]}],
                output=[{"id": item_id("msg", token, "o", 0), **common, "role": "assistant", "content": [answer]}],
                usage=usage,
            )
        )
    return records


def many_conversations(count: int) -> list[ConversationRecord | TurnRecord]:
    """`Seeded 1` (oldest) to `Seeded <count>`."""
    now = time.time() - count
    return [
        ConversationRecord(
            id=f"conv_{number:032x}",
            sort=header_sort(now + number, f"{number:032x}"),
            created_at=now + number,
            updated_at=now + number,
            title=f"Seeded {number}",
            head=f"resp_{number:032x}",
        )
        for number in range(1, count + 1)
    ]


async def write(data: Path, owner: str, records: Sequence[ConversationRecord | TurnRecord]) -> None:
    """Into the folder of a server, which may be running."""
    app = build_app(Settings.read({"COMPANION_DATA": str(data)}))
    try:
        for start in range(0, len(records), BATCH):
            batch = [Create(record.document()) for record in records[start : start + BATCH]]
            await app.store.batch(STATE, owner, batch)
    finally:
        await app.close()
