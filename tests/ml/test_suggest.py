"""What to label next: never more than asked, no two alike, the same for the same seed; unsure ones and unlike ones."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.facts import hamming
from ml.splits import NEAR
from ml.suggest import Candidate, Rule, suggest, uncertainty

RULES = {"category": Rule("exclusive", {}), "kids": Rule("attributes", {"kids": 0.4})}


def pdq(seed: int, flipped: int = 0) -> bytes:
    """A hash of 256 random bits, and so many of them turned."""
    number = random.Random(seed).getrandbits(256)
    return (number ^ ((1 << flipped) - 1)).to_bytes(32, "big")


def candidate(name: str, dress: float, hashed: bytes | None = None, **labels: float) -> Candidate:
    return Candidate(name, {"category": {"dress": dress, "shirt": round(1 - dress, 6), **labels}}, hashed)


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    """Pictures in few families of near-duplicates, some without a hash."""
    size = draw(st.integers(0, 25))
    return [
        candidate(
            f"{at:064x}",
            draw(st.floats(0, 1)),
            draw(st.none() | st.builds(pdq, st.integers(0, 5), st.integers(0, 60))),
        )
        for at in range(size)
    ]


@settings(max_examples=60)
@given(pools(), st.integers(0, 30), st.integers(0, 3), st.floats(0, 1), st.lists(st.integers(0, 5), max_size=2))
def test_what_holds_of_every_choice(
    pool: list[Candidate], count: int, seed: int, share: float, labelled: list[int]
) -> None:
    done = [pdq(n) for n in labelled]
    found = suggest(pool, RULES, count, labelled=done, uncertain=share, seed=seed)
    assert len(found) <= count
    assert len({each.candidate.sha256 for each in found}) == len(found)
    hashes = [each.candidate.pdq for each in found if each.candidate.pdq is not None]
    for at, one in enumerate(hashes):
        assert all(hamming(one, other) > NEAR for other in [*hashes[at + 1 :], *done])
    assert sum(each.why == "uncertain" for each in found) <= round(count * share)
    again = suggest(list(reversed(pool)), RULES, count, labelled=done, uncertain=share, seed=seed)
    assert again == found, "the order of the pool must not matter"


@settings(max_examples=30)
@given(pools(), st.integers(0, 30))
def test_it_gives_up_only_when_all_are_alike(pool: list[Candidate], count: int) -> None:
    """Fewer than asked: then every other candidate repeats a pick."""
    found = suggest(pool, RULES, count)
    if len(found) == count:
        return
    picked = [each.candidate for each in found]
    for each in pool:
        alike = (p for p in picked if p.pdq and each.pdq and hamming(p.pdq, each.pdq) <= NEAR)
        assert each in picked or any(alike)


def test_the_unsure_come_first_and_then_the_unlike() -> None:
    sure = [candidate(f"sure{n}", 0.99, pdq(n)) for n in range(20)]
    unsure = [candidate("even", 0.5, pdq(101)), candidate("nearly", 0.55, pdq(102)), candidate("half", 0.7, pdq(103))]
    other = Candidate("other", {"category": {"hat": 0.98, "dress": 0.02}}, pdq(104))
    found = suggest([*sure, *unsure, other], RULES, 5, uncertain=0.6)
    assert [(each.candidate.sha256, each.why) for each in found[:3]] == [
        ("even", "uncertain"), ("nearly", "uncertain"), ("half", "uncertain"),
    ]  # fmt: skip
    assert [each.score for each in found[:3]] == pytest.approx([1.0, 0.9, 0.6])
    assert found[3].candidate.sha256 == "other", "the only one of its kind is the farthest"
    assert found[3].why == "diverse"


def test_farthest_first_covers_every_cluster_before_it_repeats_one() -> None:
    pool = [
        Candidate(f"{label}{n}", {"category": {label: 0.97, "rest": 0.03}}, pdq(n + 50 * at))
        for at, label in enumerate(("dress", "shirt", "hat", "shoes"))
        for n in range(15)
    ]
    found = suggest(pool, RULES, 4, uncertain=0.0)
    assert {next(iter(each.candidate.scores["category"])) for each in found} == {"dress", "shirt", "hat", "shoes"}


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ({"category": {"dress": 0.9, "shirt": 0.1}}, 0.2),
        ({"category": {"dress": 0.5, "shirt": 0.5}}, 1.0),
        ({"category": {"dress": 0.4, "shirt": 0.3, "hat": 0.3}}, 0.9),
        ({"category": {"dress": 0.8}}, 0.4),  # the rest may all be one other label
        ({"category": {}}, 1.0),
        ({}, 1.0),
        ({"category": {"dress": 1.0}, "kids": {"kids": 0.4}}, 1.0),
        ({"category": {"dress": 1.0}, "kids": {"kids": 0.7}}, 0.5),
        ({"category": {"dress": 1.0}, "kids": {"kids": 0.1}}, 0.25),
        ({"category": {"dress": 1.0}, "kids": {"kids": 1.0}}, 0.0),
        ({"category": {"dress": 1.0}}, 0.0),
    ],
)
def test_uncertainty(scores: dict[str, dict[str, float]], wanted: float) -> None:
    assert uncertainty(Candidate("x", scores), RULES) == pytest.approx(wanted)
