"""Splits by cluster: nothing alike is shared, the shares are kept, and rare labels reach every split."""

from collections import Counter

import numpy as np
import pytest

from ml.errors import DatasetError
from ml.facts import hamming
from ml.manifest import Entry, Group, Manifest
from ml.splits import clusters, leaks, near_pairs, split


def _flipped(value: bytes, bits: int) -> bytes:
    number = int.from_bytes(value, "big") ^ ((1 << bits) - 1)
    return number.to_bytes(32, "big")


def _entry(at: int, label: str = "a", who: str = "", split: str = "train") -> Entry:
    return Entry(f"{at}.jpg", f"{at:064x}", {"g": label}, split, {"who": who})


def _manifest(entries: list[Entry]) -> Manifest:
    return Manifest("m", "1", {"g": Group("exclusive", ("a", "b", "rare"))}, tuple(entries))


def test_near_pairs_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    hashes = [rng.bytes(32) for _ in range(700)]
    hashes += [_flipped(hashes[3], 31), _flipped(hashes[4], 32), hashes[5]]
    found = {(i, j): distance for i, j, distance in near_pairs(hashes)}
    wanted = {
        (i, j): distance
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (distance := hamming(hashes[i], hashes[j])) <= 31
    }
    assert found == wanted == {(3, 700): 31, (5, 702): 0}


def test_clusters_join_what_is_alike_by_any_reason() -> None:
    entries = [_entry(0, who="x"), _entry(1), _entry(2, who="x"), _entry(3), _entry(4)]
    same, other = np.random.default_rng(2).bytes(32), np.random.default_rng(3).bytes(32)
    hashes = {"1.jpg": same, "2.jpg": _flipped(same, 20), "3.jpg": other}
    assert clusters(entries, hashes, "who").tolist() == [0, 0, 0, 3, 4]
    assert clusters(entries, hashes).tolist() == [0, 1, 1, 3, 4]
    assert clusters(entries, {}).tolist() == [0, 1, 2, 3, 4]


def test_a_split_shares_no_cluster_and_keeps_its_shares() -> None:
    rng = np.random.default_rng(4)
    entries = [
        _entry(at, label="rare" if at % 40 == 0 else "ab"[at % 2], who=f"p{rng.integers(60)}") for at in range(600)
    ]
    made = split(_manifest(entries), {}, {"train": 0.8, "validation": 0.1, "test": 0.1}, column="who", seed=5)
    assert leaks(made.entries, {}, "who") == []
    sizes = Counter(entry.split for entry in made.entries)
    assert 0.75 < sizes["train"] / 600 < 0.85
    assert min(sizes["validation"], sizes["test"]) >= 45
    rare = Counter(entry.split for entry in made.entries if entry.labels["g"] == "rare")
    assert min(rare[name] for name in ("train", "validation", "test")) >= 1


def test_a_split_depends_on_its_seed_only() -> None:
    entries = [_entry(at) for at in range(50)]
    shares = {"train": 0.5, "test": 0.5}
    first, again, other = (split(_manifest(entries), {}, shares, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.2, "test": -0.2}])
def test_shares_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(DatasetError, match="split_invalid"):
        split(_manifest([_entry(0)]), {}, shares)


def test_leaks_name_what_is_shared() -> None:
    picture = np.random.default_rng(6).bytes(32)
    entries = [_entry(0, who="x"), _entry(1, who="x", split="test"), _entry(2, split="test"), _entry(3)]
    entries.append(Entry("copy.jpg", entries[3].sha256, {"g": "a"}, "test", {"who": ""}))
    hashes = {"0.jpg": picture, "2.jpg": _flipped(picture, 7)}
    found = {leak.kind: leak for leak in leaks(entries, hashes, "who")}
    assert found["exact"].images == {"test": ("copy.jpg",), "train": ("3.jpg",)}
    assert found["who"].images == {"test": ("1.jpg",), "train": ("0.jpg",)}
    assert (found["near"].value, found["near"].images) == ("7", {"test": ("2.jpg",), "train": ("0.jpg",)})
