"""What an operation would cost in Cosmos DB, for stores that have no meter of their own.

A model, not a measurement: good for "does this grow?", not for a bill. Sources, in Microsoft's documentation:

- Point read: 1 RU for 1 KB, 10 RU for 100 KB ("Azure Cosmos DB as a key value store: cost overview").
- Write without an index: 5 RU for 1 KB, 50 RU for 100 KB (the same page); between and beyond them, a straight line.
- Each indexed path that a written document has: about 1 RU ("Indexing policies": the charge grows with the paths).
- A query inside one partition: at least about 2.8 RU ("Request Units": its examples start there), and, by our own
  estimate, 0.3 RU for each KB of result.
"""

from collections.abc import Iterable

_KB = 1024
_PER_KB = 9 / 99
"""Of a read, above the first KB: (10 - 1) RU over (100 - 1) KB. A write costs five times as much."""


def read(size: int) -> float:
    """A point read of `size` bytes; 0 is a document that is not there."""
    return 1 + _PER_KB * max(0.0, size / _KB - 1)


def write(size: int, paths: int) -> float:
    """A create, replace or upsert of `size` bytes with `paths` indexed paths; a delete counts as the smallest."""
    return 5 * read(size) + paths


def query(sizes: Iterable[int]) -> float:
    """A query, scan or page of changes that returns documents of these sizes."""
    return 2.8 + 0.3 * sum(sizes) / _KB
