"""A request that makes something, sent again under its `Idempotency-Key`: it makes that once, and has one answer.

Turns and conversations know their key themselves (their ids derive from it). Everything else that is made goes through
here: a claim under the key, the work with ids that derive from the key, so that one begun twice conflicts, the answer.
"""

import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from shared.answers.records import AnswerRecord
from shared.app import App
from shared.errors import StorageUnavailable, Unprocessable
from shared.ids import DerivedIds, derived_token
from shared.storage.base import STATE, AlreadyExists, BatchFailed, Create, Delete, Missing, Operation, Replace, Stale
from shared.sync.service import life_of

CLAIM_SECONDS = 30.0
"""After which a request whose process fell silent is answered anew."""
LOOK_SECONDS = 0.1


type Make = Callable[[App], Awaitable[bytes]]


async def answered_once(
    app: App, owner: str, key: str, body_hash: str, make: Make, *, outlives_erasure: bool = False
) -> bytes:
    """What `make` answers, or answered to an earlier request with this key; a twin that is at it is waited for.

    Args:
        outlives_erasure: what is made, by ids that can be guessed then, is known again after everything of the
            owner's was erased, this answer too.

    Raises:
        Unprocessable: the key was used for another request.
        AssistantError: of `make`; then the key is free again.
    """
    claim = AnswerRecord(
        id=f"answer_{derived_token(owner, key)}", body_hash=body_hash, until=app.clock.now() + CLAIM_SECONDS
    )
    etag = await _claim(app, owner, Create(claim.document()))
    while etag is None:
        stored = await app.store.read(STATE, owner, claim.id)
        earlier = AnswerRecord.model_validate(stored.body) if stored is not None else claim
        if earlier.body_hash != body_hash:
            raise Unprocessable(
                "This Idempotency-Key was used for another request; use a new key for a new request.",
                code="idempotency_key_reused",
            )
        if earlier.sealed is not None:
            return _unsealed(owner, key, earlier.sealed)
        claim = claim.model_copy(update={"until": app.clock.now() + CLAIM_SECONDS})
        if stored is None:
            etag = await _claim(app, owner, Create(claim.document()))
        elif earlier.until < app.clock.now():
            etag = await _claim(app, owner, Replace(claim.document(), stored.etag))
        else:
            await app.clock.sleep(LOOK_SECONDS)
    try:
        # A key may be guessed and an owner known: what is made with them, such as a share link, must not be.
        life = () if outlives_erasure else (await life_of(app, owner),)
        answer = await make(replace(app, ids=DerivedIds(owner, key, *life)))
    except Exception:
        await _note(app, owner, Delete(claim.id, etag))
        raise
    done = claim.model_copy(update={"sealed": _sealed(owner, key, answer)})
    await _note(app, owner, Replace(done.document(), etag))
    return answer


async def _claim(app: App, owner: str, operation: Operation) -> str | None:
    """The claim's etag; None when somebody else was faster."""
    try:
        return (await app.store.batch(STATE, owner, [operation]))[0]
    except (AlreadyExists, Stale, Missing):
        return None


async def _note(app: App, owner: str, operation: Operation) -> None:
    """Should this fail: what was made is there, and the same request, sent again, finds it by its id."""
    with suppress(BatchFailed, StorageUnavailable):
        await app.store.batch(STATE, owner, [operation])


def _cipher_key(owner: str, key: str) -> bytes:
    return hashlib.sha256(f"answer\x1f{owner}\x1f{key}".encode()).digest()


def _sealed(owner: str, key: str, answer: bytes) -> str:

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    nonce = secrets.token_bytes(12)
    return base64.b64encode(nonce + AESGCM(_cipher_key(owner, key)).encrypt(nonce, answer, None)).decode()


def _unsealed(owner: str, key: str, sealed: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    data = base64.b64decode(sealed)
    return AESGCM(_cipher_key(owner, key)).decrypt(data[:12], data[12:], None)
