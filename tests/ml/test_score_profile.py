"""Counting scores as production stores them: by picture here, by SQL there, with the same outcome."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.artifact import Artifact
from ml.batcher import Failure
from ml.card import Label, ModelCard
from ml.evaluate import Options, evaluate_model
from ml.score_profile import BINS, KEPT, Profile, Profiler, bin_of
from ml.scores import LabelSet, Scores
from tests.ml.test_evaluate import dataset
from worker import verdicts


def card(task: str = "tags", labels: int = 3, threshold: float | None = 0.4) -> ModelCard:
    names = [Label(f"c{at}", "category") for at in range(labels)]
    return ModelCard(
        "m", "1", task, "tiny_colour", (*names, Label("kids", "kids", threshold)),  # type: ignore[arg-type]
        {"category": "softmax", "kids": "sigmoid"}, {"name": "x"},
    )  # fmt: skip


def drawn(of: ModelCard, pictures: int, seed: int) -> list[Scores]:
    labels = LabelSet(of)
    logits = torch.tensor(np.random.default_rng(seed).normal(size=(pictures, len(of.labels)), scale=2))
    return [Scores(labels, row) for row in labels.activate(logits).numpy()]


def counted(of: ModelCard, scores: list[Scores]) -> Profile:
    profiler = Profiler(of)
    groups = {group: np.array(at) for group, at in of.groups.items()}
    rows = [(n, {group: each.values[at] for group, at in groups.items()}) for n, each in enumerate(scores)]
    failed = (len(rows), Failure("not_an_image", ""))
    assert list(profiler.watch([*rows, failed])) == [*rows, failed], "what passes by stays as it is"
    return profiler.profile


@pytest.mark.parametrize("labels", [3, 40])
def test_counts_are_those_of_stored_tags(labels: int) -> None:
    """Stored form → counts by its own plain rule, against the profiler; with 40 labels only the best 20 are stored."""
    of = card(labels=labels)
    scores = drawn(of, 200, labels)
    found = counted(of, scores)
    best, kids = [0] * BINS, [0] * BINS
    given: dict[str, int] = {}
    for each in scores:
        tags = verdicts.stored(each)["tags"]
        first = next((tag for tag in tags if tag["group"] == "category"), None)
        if first is not None:
            best[bin_of(first["score"])] += 1
            given[first["label"]] = given.get(first["label"], 0) + 1
        for tag in tags:
            if tag["group"] == "kids":
                kids[bin_of(tag["score"])] += 1
    assert found.pictures == 200
    assert found.groups["category"].histogram == best
    assert {name: counts.given for name, counts in found.groups["category"].labels.items()} == given
    assert found.groups["kids"].labels["kids"].histogram == kids
    assert found.groups["kids"].labels["kids"].given == sum(kids)
    assert sum(kids) < 200, "a threshold that all reach would show nothing"


def test_all_classes_of_moderation_have_their_histogram() -> None:
    of = card("moderation", threshold=None)
    scores = drawn(of, 100, 3)
    found = counted(of, scores)
    for at, label in enumerate(of.labels):
        counts = found.groups[label.group].labels[label.name]
        values = [round(float(each.values[at]), 6) for each in scores]
        assert counts.histogram == np.bincount([bin_of(v) for v in values], minlength=BINS).tolist()
    assert sum(counts.given for counts in found.groups["category"].labels.values()) == 100
    above = sum(float(each.values[-1]) >= 0.5 for each in scores)
    assert found.groups["kids"].labels["kids"].given == above


def test_as_many_tags_as_are_stored() -> None:
    assert KEPT == verdicts.STORED_TAGS


def test_bins_are_closed_at_the_top() -> None:
    assert [bin_of(score) for score in (0.0, 0.099999, 0.1, 0.7, 0.899999, 0.9, 1.0)] == [0, 0, 1, 7, 8, 9, 9]


def test_profiles_add_up_and_survive_json() -> None:
    of = card()
    scores = drawn(of, 60, 1)
    whole, halves = counted(of, scores), Profile()
    for part in (scores[:30], scores[30:]):
        halves.merge(Profile.from_dict(counted(of, part).to_dict()))
    assert halves.to_dict() == whole.to_dict()


def test_an_evaluation_carries_its_scores(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [("red", "red"), ("green", "green"), ("blue", "red")])
    found = evaluate_model(tiny_tags, manifest, tmp_path, "test", options=Options(rounds=10))
    assert found.scores is not None
    assert found.to_dict()["scores"] == found.scores.to_dict()
    assert found.scores.pictures == 3
