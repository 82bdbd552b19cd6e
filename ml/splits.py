"""Who may share a split with whom: clusters of near-duplicates and of a group column, and the leaks between splits.

Two pictures are near-duplicates from a PDQ distance of 31 downwards. A cluster never crosses a split that we make.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.errors import DatasetError
from ml.manifest import Entry, Manifest, named

NEAR = 31
_ROWS = 512  # hashes compared at once with all others: 512 × 100,000 × 8 bytes stay below half a gigabyte


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that several splits share. `kind`: exact, near, or the name of a column."""

    kind: str
    value: str
    images: Mapping[str, tuple[str, ...]]  # by split


def near_pairs(hashes: Sequence[bytes], limit: int = NEAR) -> Iterator[tuple[int, int, int]]:
    """(i, j, distance), i < j, of all 256-bit hashes at most `limit` bits apart. Compares all with all."""
    if not hashes:
        return
    words = np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), 4)
    for start in range(0, len(words), _ROWS):
        rows = words[start : start + _ROWS]
        distance = np.zeros((len(rows), len(words) - start), dtype=np.uint16)
        for word in range(4):
            distance += np.bitwise_count(rows[:, None, word] ^ words[None, start:, word])
        for i, j in zip(*np.nonzero(distance <= limit), strict=True):
            if i < j:
                yield int(start + i), int(start + j), int(distance[i, j])


def clusters(entries: Sequence[Entry], hashes: Mapping[str, bytes], column: str | None = None) -> NDArray[np.int64]:
    """A cluster number per entry: equal bytes, near-duplicates (`hashes` by image) and equal values of `column`
    share one. Pictures without a hash (too little detail to match) and empty values bind nobody.
    """
    parent = list(range(len(entries)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def join(a: int, b: int) -> None:
        parent[max(root(a), root(b))] = min(root(a), root(b))

    first: dict[tuple[str, str], int] = {}
    for at, entry in enumerate(entries):
        keys = [("sha256", entry.sha256)]
        if column and entry.columns.get(column):
            keys.append(("column", entry.columns[column]))
        for key in keys:
            join(first.setdefault(key, at), at)
    hashed = [at for at, entry in enumerate(entries) if entry.image in hashes]
    for i, j, _ in near_pairs([hashes[entries[at].image] for at in hashed]):
        join(hashed[i], hashed[j])
    return np.array([root(at) for at in range(len(entries))], dtype=np.int64)


def split(
    manifest: Manifest,
    hashes: Mapping[str, bytes],
    shares: Mapping[str, float],
    *,
    column: str | None = None,
    seed: int = 0,
) -> Manifest:
    """The manifest with every cluster put whole into one split of `shares` ({"train": 0.8, …}, sums to 1).

    Clusters go, largest first, to the split that lacks their labels most, so that rare labels reach every
    split where enough clusters have them. Raises DatasetError('split_invalid').
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DatasetError("split_invalid", "shares must be above 0 and sum to 1", field="shares")
    members: dict[int, list[int]] = defaultdict(list)
    for at, cluster in enumerate(clusters(manifest.entries, hashes, column).tolist()):
        members[cluster].append(at)
    marks = [_marks(entry) for entry in manifest.entries]
    totals: dict[str, int] = defaultdict(int)
    for own in marks:
        for mark in own:
            totals[mark] += 1
    missing = {name: {mark: share * total for mark, total in totals.items()} for name, share in shares.items()}
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda cluster: -len(members[cluster]))
    placed = [""] * len(manifest.entries)
    for cluster in order:
        held = [mark for at in members[cluster] for mark in marks[at]]
        # A rare label weighs as much as a frequent one.
        best = max(shares, key=lambda name: sum(missing[name][mark] / totals[mark] / shares[name] for mark in held))
        for mark in held:
            missing[best][mark] -= 1
        for at in members[cluster]:
            placed[at] = best
    entries = tuple(replace(entry, split=placed[at]) for at, entry in enumerate(manifest.entries))
    return replace(manifest, entries=entries)


def leaks(entries: Sequence[Entry], hashes: Mapping[str, bytes], column: str | None = None) -> list[Leak]:
    """What different splits share: exact and near-duplicates, and values of `column`."""
    found: list[Leak] = []
    for kind in ("exact", *([column] if column else [])):
        shared: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if value := entry.sha256 if kind == "exact" else entry.columns.get(kind):
                shared[value].append(entry)
        found += [_leak(kind, value, same) for value, same in shared.items() if len({e.split for e in same}) > 1]
    hashed = [entry for entry in entries if entry.image in hashes]
    for i, j, distance in near_pairs([hashes[entry.image] for entry in hashed]):
        a, b = hashed[i], hashed[j]
        if a.split != b.split and a.sha256 != b.sha256:
            found.append(_leak("near", str(distance), [a, b]))
    return found


def _leak(kind: str, value: str, entries: Sequence[Entry]) -> Leak:
    images: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        images[entry.split].append(entry.image)
    return Leak(kind, value, {name: tuple(paths) for name, paths in sorted(images.items())})


def _marks(entry: Entry) -> list[str]:
    """What a picture counts towards: itself, and each of its labels."""
    return ["", *(f"{group}:{label}" for group, value in entry.labels.items() for label in named(value))]
