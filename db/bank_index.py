"""An exact index of 256-bit hashes in memory: every pair within a Hamming distance, no other. Pure: no database.

Multi-index hashing (Norouzi, Punjani, Fleet: "Fast Exact Search in Hamming Space with Multi-Index Hashing", 2014): a
hash is sixteen bands of sixteen bits. Two hashes that differ in at most d bits differ in at most d // 16 of them in one
of the bands, or all bands together would differ in more. So it is enough to look up, band by band, the query's value
with up to d // 16 bits flipped, and to count the bits of what is found there.
"""

from functools import lru_cache
from itertools import combinations, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

BYTES: Final = 32
BANDS: Final = 16
PLAIN: Final = 256
"""Up to so many hashes, comparing with all of them is faster than looking up."""
AT_ONCE: Final = 1 << 20
"""Pairs whose bits are counted in one go: bounds the memory of a search (48 bytes each)."""

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class HashIndex:
    """Finds hashes by distance. Immutable; 96 bytes a hash."""

    def __init__(self, hashes: Bytes) -> None:
        """`hashes`: (n, 32)."""
        hashes = np.ascontiguousarray(hashes).reshape(-1, BYTES)
        self._words = hashes.view(np.uint64)
        self._order: list[NDArray[np.int32]] = []
        self._starts: list[Numbers] = []
        if len(self) > PLAIN:
            for band in _bands(hashes).T:
                self._order.append(np.argsort(band, kind="stable").astype(np.int32))
                self._starts.append(np.concatenate(([0], np.cumsum(np.bincount(band, minlength=1 << 16)))))

    @property
    def hashes(self) -> Bytes:
        """What it was made of."""
        return self._words.view(np.uint8)

    def __len__(self) -> int:
        return int(self._words.shape[0])

    def search(self, queries: Bytes, distance: int) -> tuple[Numbers, Numbers, Numbers]:
        """Every pair of a query (m, 32) and a hash that differ in at most `distance` bits: the numbers of the query
        and of the hash, and the distance, ordered by query and hash."""
        queries = np.ascontiguousarray(queries).reshape(-1, BYTES)
        if not len(queries) or not len(self):
            none = np.empty(0, np.int64)
            return none, none, none
        found = self._compare(queries, distance) if not self._order else self._look_up(queries, distance)
        pairs = np.concatenate([query * len(self) + row for query, row, _ in found])
        bits = np.concatenate([apart for _, _, apart in found])
        pairs, first = np.unique(pairs, return_index=True)  # a pair may be found in several bands
        return pairs // len(self), pairs % len(self), bits[first]

    def _compare(self, queries: Bytes, distance: int) -> list[tuple[Numbers, Numbers, Numbers]]:
        words, found = queries.view(np.uint64), []
        step = max(1, AT_ONCE // len(self))
        for start in range(0, len(words), step):
            apart = _bits(words[start : start + step, None, :] ^ self._words[None, :, :])
            query, row = np.nonzero(apart <= distance)
            found.append((query + start, row, apart[query, row]))
        return found

    def _look_up(self, queries: Bytes, distance: int) -> list[tuple[Numbers, Numbers, Numbers]]:
        words, found = queries.view(np.uint64), []
        flips = _flips(distance // BANDS)
        numbers = np.repeat(np.arange(len(queries)), len(flips))
        for band, values in enumerate(_bands(queries).T):
            keys = (values[:, None] ^ flips[None, :]).ravel().astype(np.int64)
            low = self._starts[band][keys]
            many = self._starts[band][keys + 1] - low
            for part in _parts(many):
                counts = many[part]
                ends = np.cumsum(counts)
                places = np.repeat(low[part] - (ends - counts), counts) + np.arange(ends[-1])
                row = self._order[band][places]
                query = np.repeat(numbers[part], counts)
                apart = _bits(words[query] ^ self._words[row])
                near = apart <= distance
                found.append((query[near], row[near].astype(np.int64), apart[near]))
        return found


def _bits(words: NDArray[np.uint64]) -> Numbers:
    """The set bits of the last axis."""
    return np.asarray(np.bitwise_count(words).sum(axis=-1, dtype=np.int64))


def _bands(hashes: Bytes) -> NDArray[np.uint16]:
    return hashes.view(np.uint16)


@lru_cache
def _flips(bits: int) -> NDArray[np.uint16]:
    """Every 16-bit number with at most so many bits set."""
    chosen = [sum(1 << bit for bit in some) for n in range(bits + 1) for some in combinations(range(BANDS), n)]
    return np.array(chosen, np.uint16)


def _parts(many: Numbers) -> list[slice]:
    """Runs of look-ups with about AT_ONCE hashes each (one look-up may have more: all hashes of one value)."""
    ends = np.cumsum(many)
    if not len(ends) or not ends[-1]:
        return []
    cuts = np.searchsorted(ends, np.arange(AT_ONCE, ends[-1], AT_ONCE), side="left") + 1
    edges = np.unique(np.concatenate(([0], cuts, [len(many)])))
    return [slice(int(a), int(b)) for a, b in pairwise(edges) if ends[b - 1] > (ends[a - 1] if a else 0)]
