"""The index of hashes finds every pair within the distance, and no other: compared with counting all bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from db import bank_index
from db.bank_index import HashIndex

Found = set[tuple[int, int, int]]


def all_pairs(hashes: NDArray[np.uint8], queries: NDArray[np.uint8], distance: int) -> Found:
    """Brute force, bit by bit, without anything of the index."""
    apart = np.unpackbits(queries[:, None, :] ^ hashes[None, :, :], axis=2).sum(axis=2)
    return {(int(q), int(h), int(apart[q, h])) for q, h in zip(*np.nonzero(apart <= distance), strict=True)}


def flipped(hash_: NDArray[np.uint8], bits: list[int]) -> NDArray[np.uint8]:
    out = np.unpackbits(hash_)
    out[bits] ^= 1
    return np.packbits(out)


def searched(hashes: NDArray[np.uint8], queries: NDArray[np.uint8], distance: int) -> Found:
    rows = zip(*HashIndex(hashes).search(queries, distance), strict=True)
    found = [(int(q), int(h), int(d)) for q, h, d in rows]
    assert found == sorted(found)
    assert len(set(found)) == len(found), "a pair is named once"
    return set(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    distance=st.integers(0, 47),
    count=st.sampled_from([1, 40, 256, 257, 700]),
    data=st.data(),
)
def test_every_pair_within_the_distance_is_found(seed: int, distance: int, count: int, data: st.DataObject) -> None:
    """Queries lie around the distance of some hash, on both sides of it, with their bits flipped where hypothesis
    wants: also all in one band, or two in each."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    near = []
    for _ in range(12):
        apart = max(0, min(256, distance + data.draw(st.integers(-2, 2))))
        start, step = data.draw(st.integers(0, 255)), data.draw(st.sampled_from([1, 3, 8, 16, 17, 255]))
        order = [(start + step * n) % 256 for n in range(256)]
        bits = list(dict.fromkeys([*order, *range(256)]))[:apart]
        near.append(flipped(hashes[data.draw(st.integers(0, count - 1))], bits))
    queries = np.array([*near, *rng.integers(0, 256, (4, 32), dtype=np.uint8)])
    assert searched(hashes, queries, distance) == all_pairs(hashes, queries, distance)


@pytest.mark.parametrize("distance", [0, 15, 16, 31, 32, 47])
def test_many_alike_are_all_found(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Banks of near duplicates put everything into few places of the index, and the pairs of a look-up into parts."""
    monkeypatch.setattr(bank_index, "AT_ONCE", 1000)
    rng = np.random.default_rng(distance)
    one = rng.integers(0, 256, 32, dtype=np.uint8)
    hashes = np.array([flipped(one, rng.choice(256, n % 50, replace=False).tolist()) for n in range(600)])
    queries = np.array([flipped(one, rng.choice(256, n % 20, replace=False).tolist()) for n in range(30)])
    found = searched(hashes, queries, distance)
    assert found == all_pairs(hashes, queries, distance)
    assert distance < 16 or len(found) > 1000


def test_two_bits_in_every_band_but_one_are_the_hardest_case() -> None:
    """31 bits: two in fifteen bands and one in the last. An index that looked for equal bands only would miss it."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 256, (1000, 32), dtype=np.uint8)
    bits = [band * 16 + n for band in range(15) for n in (3, 9)] + [15 * 16 + 5]
    query = flipped(hashes[77], bits)[None, :]
    assert (0, 77, 31) in searched(hashes, query, 31)
    assert searched(hashes, query, 30) == set()


def test_nothing_finds_nothing() -> None:
    none = np.empty((0, 32), np.uint8)
    some = np.zeros((3, 32), np.uint8)
    assert searched(none, some, 31) == set()
    assert searched(some, none, 31) == set()
