"""Blobs of what disappeared by itself: temporary conversations, the files of exports and imports."""

from contextlib import suppress

from shared.clock import Clock
from shared.privacy.records import BlobsRecord
from shared.storage.base import STATE, BlobStore, Delete, Due, Missing, Replace, Stale, Store

AGAIN_SECONDS = 3600.0
"""Until a document that is still there (it was written again) is looked for once more."""


async def sweep_blobs(store: Store, blobs: BlobStore, clock: Clock, due: Due) -> None:
    """Delete the blobs that a document which is gone has left. Safe to repeat, and to break off."""
    record = BlobsRecord.model_validate(due.stored.body)
    later = record.model_copy(update={"due": clock.now() + AGAIN_SECONDS})
    is_there = await store.read(STATE, due.partition, record.of) is not None
    if not is_there:
        for name in record.names:
            await blobs.delete(due.partition, name)
    operation = Replace(later.document(), due.stored.etag) if is_there else Delete(record.id, due.stored.etag)
    with suppress(Stale, Missing):  # written again this moment, or swept by another host
        await store.batch(STATE, due.partition, [operation])
