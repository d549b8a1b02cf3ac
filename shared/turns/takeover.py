"""Turns whose process died: claim, seal, and go on from what the journal holds; or end them.

A claim is a conditional write of the record (one more attempt, a new host); the seal is the next id in the journal,
which the old writer's next append needs. After both, nobody else can write or commit, and what was shown is known.
"""

import logging
from dataclasses import dataclass, replace
from itertools import takewhile

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.repository import FoundTurn, find_turn
from shared.models.base import ModelRequest, Usage
from shared.storage.base import STATE, Missing, Replace, Stale
from shared.telemetry import Tally, names
from shared.telemetry.signals import signals
from shared.turns.compaction import compacted
from shared.turns.context import Context, estimate_tokens
from shared.turns.events import Folded, fold
from shared.turns.journal import Journal, Tail, read_tail, seal
from shared.turns.ledger import Ledger
from shared.turns.live import LiveTurn
from shared.turns.loop import run_tool, unforced, unknown_outcome
from shared.turns.mend import going_on_from
from shared.turns.output import FIRST_SEQUENCE, Output
from shared.turns.prepare import model_of, model_request, path_to, turn_context
from shared.turns.replay import opening
from shared.turns.run import Run, estimated_usage, new_journal, tools_of, usage_body
from shared.wire.responses import render_response

log = logging.getLogger("companion.turns")

_LOOK_AGAIN = (0.05, 0.2, 0.5, 0.0)
"""Seconds before a queued turn that could not be claimed is looked at again."""
MAX_ATTEMPTS = 3
"""A turn that kills so many hosts ends `failed`."""


@dataclass(slots=True)
class Claimed:
    """A turn that is ours alone now, and everything that was shown of it."""

    turn: TurnRecord
    etag: str
    tail: Tail
    journal: Journal
    folded: Folded
    tally: Tally
    was_begun: bool
    """False: it was taken out of the queue, and no model was asked."""

    def run(self, app: App, owner: str) -> Run:
        """Ready to go on; its stream so far is there for followers on this host."""
        sequence = self.tail.next_sequence or FIRST_SEQUENCE
        live = LiveTurn(self.turn)
        live.publish(opening(self.turn))
        for entry in self.tail.entries:
            if not entry.batch.is_empty:
                live.publish(entry.batch)
        return Run(
            app=app,
            owner=owner,
            live=live,
            output=Output.resumed(self.turn.token, self.folded, sequence=sequence, include=self.turn.include),
            journal=self.journal,
            ledger=Ledger(app.store, owner, turn_etag=self.etag),
            tally=self.tally,
        )


def is_expired(turn: TurnRecord, tail: Tail, now: float) -> bool:
    """Whether nobody claims the turn any more: by its record, nor by the journal, where the lease is renewed."""
    return not turn.is_final and max(turn.due or 0.0, tail.until) < now


async def claim(app: App, owner: str, found: FoundTurn, *, note: str | None) -> Claimed | None:
    """Make a running turn ours, whoever ran it.

    Returns:
        None when somebody else was faster, or ended it.
    """
    turn = found.record
    if turn.is_final:
        return None
    with Tally() as tally:
        claimed = turn.model_copy(
            update={
                "status": "in_progress",
                "attempt": turn.attempt + (turn.status == "in_progress"),
                "host": app.host,
                "due": app.clock.now() + app.settings.turn.lease,
                "notes": [*turn.notes, note] if note else turn.notes,
            }
        )
        try:
            etags = await app.store.batch(STATE, owner, [Replace(claimed.document(), found.etag)])
        except (Stale, Missing):
            return None
        tail = await read_tail(app.store, turn.id)
        journal = new_journal(app, claimed, number=tail.number)
        tail = await seal(journal, lambda: read_tail(app.store, turn.id))
        folded = fold(tail.events)
        return Claimed(
            claimed, etags[0], _counted(tail, claimed, folded), journal, folded, tally, turn.status != "queued"
        )


async def take_over(app: App, owner: str, response_id: str) -> LiveTurn | None:
    """Go on with a turn whose lease has run out.

    Returns:
        The turn, running here now; None when there is nothing to take: it lives, has ended, or another host has it.
    """
    live = app.live.find(owner, response_id)
    if live is not None:
        return live
    found = await find_turn(app.store, owner, response_id)
    if found is None or found.record.status == "queued":
        return None  # the line it stands in is the workers' business
    if not is_expired(found.record, await read_tail(app.store, response_id), app.clock.now()):
        return None
    return await _go_on(app, owner, found)


async def run_queued(app: App, owner: str, response_id: str) -> LiveTurn | None:
    """Begin a background turn, or take over one whose worker has died.

    Returns:
        The turn, running here now; None when there is nothing to do: it has ended, or another worker has it.
    """
    for pause in _LOOK_AGAIN:
        found = await find_turn(app.store, owner, response_id)
        if found is not None and found.record.status != "queued":
            return await take_over(app, owner, response_id)
        claimed = await claim(app, owner, found, note=None) if found is not None else None
        if claimed is not None:
            run = claimed.run(app, owner)
            run.begin(lambda run, claimed=claimed: _resume(run, claimed))
            return run.live
        # Its message may be faster than this replica, or the record was touched by whoever sent the message.
        await app.clock.sleep(pause)
    return None


async def give_up(app: App, owner: str, response_id: str, reason: str) -> None:
    """End a turn `failed` that no worker could run: nothing that is accepted stays queued for ever."""
    try:
        found = await find_turn(app.store, owner, response_id)
        claimed = await claim(app, owner, found, note=reason) if found is not None else None
    except Exception:  # it fails here as it fails its workers; its message is parked all the same
        log.exception("turn.not_given_up", extra={"response_id": response_id})
        return
    if claimed is None:
        return
    run = claimed.run(app, owner)
    run.close_items()
    message = f"The response was given up: {reason}"
    used = _estimate(claimed.turn, claimed.folded) if claimed.was_begun else {"usage": usage_body(Usage())}
    run.begin_ended({"status": "failed", "error": {"code": "server_error", "message": message}, **used})
    await run.live.finished()


async def _go_on(app: App, owner: str, found: FoundTurn) -> LiveTurn | None:
    response_id = found.record.id
    claimed = await claim(
        app, owner, found, note=f"Taken over from a host that stopped (attempt {found.record.attempt})."
    )
    if claimed is None:
        return None
    signals.measure(names.TAKE_OVERS, 1)
    log.warning("turn.taken_over", extra={"response_id": response_id, "attempt": claimed.turn.attempt})
    run = claimed.run(app, owner)
    outcome = claimed.tail.outcome
    if outcome is not None:
        run.close_items()  # nothing is open, unless its writer could not store the rest
        run.begin_ended(outcome)
    elif found.record.attempt >= MAX_ATTEMPTS:
        run.begin_ended(_given_up(claimed, run))
    else:
        run.begin(lambda run: _resume(run, claimed))
    return run.live


def _given_up(claimed: Claimed, run: Run) -> dict[str, object]:
    run.close_items()
    message = f"The response was given up after {MAX_ATTEMPTS} hosts had stopped while making it."
    return {
        "status": "failed",
        "error": {"code": "server_error", "message": message},
        **_estimate(claimed.turn, claimed.folded),
    }


def _estimate(turn: TurnRecord, folded: Folded) -> dict[str, object]:
    """Usage of calls whose end nobody saw."""
    tokens = estimate_tokens(turn.input)
    return {"usage": usage_body(estimated_usage(tokens, folded.items))}


def _counted(tail: Tail, turn: TurnRecord, folded: Folded) -> Tail:
    """With an estimate of what was used, where a writer could not store its output and ended the turn in the middle."""
    if tail.outcome is None or "usage" in tail.outcome:
        return tail
    used = _estimate(turn, folded)
    return Tail(
        [entry if entry.outcome is None else replace(entry, outcome=entry.outcome | used) for entry in tail.entries]
    )


async def _resume(run: Run, claimed: Claimed) -> None:
    """From the stored prefix to the end of the answer.

    Finished steps stay. A tool call that may have run is run again only if that is declared safe. Text that was shown
    is never spliced: it goes on where the deployment can, else its item is closed as `incomplete` and the answer begins
    again in a new one.
    """
    app, turn, output = run.app, run.live.record, run.output
    context = await context_of(app, run.owner, turn)
    tokens = estimate_tokens(context.items)
    if turn.params["background"] and claimed.tail.next_sequence is None:
        snapshot = render_response(turn, status="in_progress", output=[])
        output.emit({"type": "response.in_progress", "response": snapshot})
        run.writer.touch()
    if context.needs_summary:
        context = await compacted(run, context)
        turn = run.live.record
    await _settle_calls(run, claimed)
    if output.open_items():
        further = await _going_on(run, context)
        if further is not None:
            run.note("The answer was gone on with from what was shown before the take-over.")
            run.result.usage += estimated_usage(tokens, output.snapshot())
            await run.loop(further)
            return
        # Durable before it is shown: should this host stop too, the next one must not take the torn text for an answer.
        await _remember_torn(run, [item["id"] for item in output.open_items()])
        turn = run.live.record
        lost = estimated_usage(tokens, output.snapshot())
        run.result.usage = run.result.usage + lost
        output.close("incomplete")
        run.writer.touch()
    if _is_whole(output, turn.torn):
        run.result.usage = estimated_usage(tokens, output.items)
        if output.items[-1].get("status") == "incomplete":
            run.result.incomplete = "max_output_tokens"
        return
    model = await app.models.resolve(model_of(turn))
    own = [item for item in output.items if item["id"] not in turn.torn]
    request = model_request(app, turn, model, [*context.items, *own])
    await run.loop(unforced(request) if any(item["type"] == "mcp_call" for item in own) else request)


async def _going_on(run: Run, context: Context) -> ModelRequest | None:
    """The call that goes on with the text that was shown, where the deployment can."""
    turn = run.live.record
    model = await run.app.models.resolve(model_of(turn))
    own = [item for item in run.output.items if item["id"] not in turn.torn]
    return going_on_from(run.app.models, model_request(run.app, turn, model, [*context.items, *own]), run.output)


async def _remember_torn(run: Run, ids: list[str]) -> None:
    turn = run.live.record
    await run.remember(
        torn=[*turn.torn, *(id_ for id_ in ids if id_ not in turn.torn)],
        notes=[*turn.notes, "Text shown before the take-over was closed as incomplete; the answer restarts."],
    )


def _is_whole(output: Output, torn: list[str]) -> bool:
    """Whether the last thing the model said was an answer, or calls for the client to make."""
    if not output.items or output.items[-1]["id"] in torn:
        return False
    return output.items[-1]["type"] in ("message", "function_call", "custom_tool_call")


async def _settle_calls(run: Run, claimed: Claimed) -> None:
    tools = tools_of(run.app, run.live.record)
    for index in sorted(claimed.folded.called):
        item = run.output.items[index]
        if item["status"] != "in_progress":
            continue
        tool = tools.get(item["name"])
        if index in claimed.folded.begun and not (tool and tool.is_idempotent):
            unknown_outcome(run.output, index)
        else:
            await run_tool(run.output, run.writer, index, tools)
        run.writer.touch()


async def context_of(app: App, owner: str, turn: TurnRecord) -> Context:
    """What the model was shown before this turn's own output: history along the branch, then the input."""
    parent = await find_turn(app.store, owner, turn.parent) if turn.parent else None
    path = await path_to(app, owner, parent.record) if parent else []
    window = (await app.models.route(await app.models.resolve(model_of(turn)))).window
    context = turn_context(app, path, turn.input, window=window, params=turn.params, call=turn.call)
    if turn.summary is not None:  # made before the host stopped: what it covers is not read again
        kept = list(takewhile(lambda past: turn.summary is not None and past.id != turn.summary.upto, path))
        return replace(context, summary=turn.summary.text, older=[], kept=kept[::-1])
    return context
