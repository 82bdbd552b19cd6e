"""A model over a dataset, through the path of production: the tiny model's answers are known, so are its figures."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml import images, scoring, tiny
from ml.artifact import Artifact
from ml.batcher import Failure
from ml.errors import DatasetError
from ml.evaluate import Options, evaluate, evaluate_model, mistakes
from ml.evaluation import About
from ml.manifest import Entry, Group, Manifest, Value
from ml.metrics import UNKNOWN
from ml.predictor import Predictor
from tests.ml.conftest import jpeg

COLOURS = {"grey": (60, 60, 60), "red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}
FEW = Options(rounds=50)
ABOUT = About("tiny-tags@1", "0" * 64, "colours@1", "1" * 64, "test")


def entry(image: str, data: bytes, labels: Mapping[str, Value], **columns: str) -> Entry:
    return Entry(image, hashlib.sha256(data).hexdigest(), labels, "test", columns)


def dataset(root: Path, labelled: list[tuple[str, str | None]], labels: tuple[str, ...] = tuple(COLOURS)) -> Manifest:
    """One picture for each (colour, label); the column `parity` says whether its number is even."""
    entries = []
    for at, (colour, label) in enumerate(labelled):
        data = jpeg(COLOURS[colour], (40 + at, 30))
        (root / f"{at}.jpg").write_bytes(data)
        entries.append(entry(f"{at}.jpg", data, {"colour": label}, parity="even" if at % 2 == 0 else "odd"))
    return Manifest("colours", "1", {"colour": Group("exclusive", labels)}, tuple(entries))


def test_a_model_that_is_right_has_every_figure_at_1(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [(colour, colour) for colour in COLOURS] * 10)
    found = evaluate_model(tiny_tags, manifest, tmp_path, "test", options=FEW)
    group = found.groups["colour"]
    for name in ("accuracy", "macro_f1", "mean_average_precision", "top_3"):
        assert group.figures[name].value == pytest.approx(1.0)
    assert group.mistakes == ()
    assert [row[at] for at, row in enumerate(group.confusion)] == [10] * 4
    assert (found.about.model, found.about.model_sha256) == ("tiny-tags@1", tiny_tags.sha256)
    assert (found.about.dataset, found.about.data_sha256) == ("colours@1", manifest.sha256)
    assert {of.value for of in group.slices} == {"even", "odd"}


def test_scores_are_those_of_production(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [("red", "red"), ("blue", "blue")])
    predictor = Predictor([tiny_tags])
    for originals in (False, True):
        found = scoring.predictions(predictor, tiny_tags.card, manifest.entries, tmp_path, originals=originals)
        for (got, scores), colour in zip(found, ("red", "blue"), strict=True):
            assert not isinstance(scores, Failure)
            assert got.labels["colour"] == colour
            expected = tiny.expected("tags", COLOURS[colour])
            assert scores["colour"].tolist() == pytest.approx(list(expected.values()), abs=0.03)


def test_the_working_copy_is_bounded_and_the_original_is_not(tmp_path: Path) -> None:
    data = jpeg((9, 9, 9), (1000, 800))
    (tmp_path / "big.jpg").write_bytes(data)
    big = entry("big.jpg", data, {"colour": None})
    copy, original = (images.decode(read(tmp_path, big)) for read in (scoring.working_copy, scoring._original))
    assert min(copy.size) == 384
    assert original.size == (1000, 800)
    assert np.array_equal(np.asarray(original), np.asarray(images.decode(data)))


def test_pictures_that_cannot_be_read_are_listed_and_count_nowhere(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [("red", "red"), ("blue", "blue"), ("red", "red"), ("green", "green")])
    (tmp_path / "0.jpg").write_bytes(b"not a picture")
    (tmp_path / "1.jpg").unlink()
    broken = entry("broken.jpg", jpeg((1, 2, 3))[:200], {"colour": "red"})
    (tmp_path / "broken.jpg").write_bytes(jpeg((1, 2, 3))[:200])
    manifest = replace(manifest, entries=(*manifest.entries, broken))
    found = evaluate_model(tiny_tags, manifest, tmp_path, "test", options=FEW)
    assert [(of.image, of.code) for of in found.unread] == [
        ("0.jpg", "picture_changed"), ("1.jpg", "unreadable"), ("broken.jpg", "truncated_image")
    ]  # fmt: skip
    assert found.pictures == 2
    assert found.groups["colour"].figures["accuracy"].value == 1.0


def test_unknown_labels_are_left_out(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [("red", "red"), ("blue", None), ("red", "blue")])
    group = evaluate_model(tiny_tags, manifest, tmp_path, "test", options=FEW).groups["colour"]
    assert (group.pictures, group.unknown) == (2, 1)
    assert group.figures["accuracy"].value == 0.5


def test_the_models_order_of_labels_counts_and_the_datasets_may_be_fewer(tiny_tags: Artifact, tmp_path: Path) -> None:
    manifest = dataset(tmp_path, [("red", "red"), ("blue", "blue")], labels=("blue", "red"))
    group = evaluate_model(tiny_tags, manifest, tmp_path, "test", options=FEW).groups["colour"]
    assert [of.label for of in group.labels] == ["grey", "red", "green", "blue"]
    assert [of.support for of in group.labels] == [0, 1, 0, 1]
    assert group.figures["accuracy"].value == 1.0


@pytest.mark.parametrize(
    ("groups", "field"),
    [
        ({"colour": Group("exclusive", ("red", "plaid"))}, "groups.colour.labels"),
        ({"pattern": Group("exclusive", ("plaid",))}, "groups.pattern"),
    ],
)
def test_labels_that_the_model_does_not_know_are_refused(
    tiny_tags: Artifact, tmp_path: Path, groups: dict[str, Group], field: str
) -> None:
    manifest = Manifest("d", "1", groups, ())
    with pytest.raises(DatasetError) as refused:
        evaluate_model(tiny_tags, manifest, tmp_path, "test")
    assert (refused.value.code, refused.value.field) == ("label_unknown", field)


def test_a_split_without_a_picture_is_refused(tiny_tags: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        evaluate_model(tiny_tags, dataset(tmp_path, [("red", "red")]), tmp_path, "validation")
    assert refused.value.code == "dataset_empty"


def made(values: list[Value], scores: list[list[float]], kind: str = "attributes") -> scoring.Gathered:
    group = Group("attributes" if kind == "attributes" else "exclusive", ("a", "b"))
    entries = [Entry(f"{at}.jpg", "0" * 64, {"g": value}, "test", {}) for at, value in enumerate(values)]
    found = [(of, {"g": np.array(row)}) for of, row in zip(entries, scores, strict=True)]
    return scoring.gather(found, {"g": group})


def test_truths_of_attributes() -> None:
    gathered = made([("b",), (), None, ("a", "b")], [[0.1, 0.9]] * 4)
    assert gathered.groups["g"].truth.tolist() == [[0, 1], [0, 0], [UNKNOWN, UNKNOWN], [1, 1]]
    assert gathered.groups["g"].thresholds.tolist() == [0.5, 0.5]


def test_thresholds_come_from_the_card(tiny_tags: Artifact) -> None:
    labels = (replace(tiny_tags.card.labels[0], threshold=0.3), *tiny_tags.card.labels[1:])
    cuts = scoring.thresholds(replace(tiny_tags.card, labels=labels))
    assert cuts == {"colour": {"grey": 0.3, "red": None, "green": None, "blue": None}}
    entries = [(Entry("a", "0" * 64, {"colour": "red"}, "test", {}), {"colour": np.full(4, 0.25)})]
    gathered = scoring.gather(entries, {"colour": Group("exclusive", tuple(COLOURS))}, cuts)
    assert gathered.groups["colour"].thresholds.tolist() == [float(np.float32(0.3)), 0, 0, 0]


def test_the_surest_mistakes_come_first() -> None:
    gathered = made(["a", "a", "b", "b"], [[0.4, 0.6], [0.05, 0.95], [0.8, 0.2], [0.1, 0.9]], "exclusive")
    found = mistakes(gathered.groups["g"], gathered.entries)
    assert [(of.image, of.truth, of.said, of.score) for of in found] == [
        ("1.jpg", "a", "b", 0.95), ("2.jpg", "b", "a", 0.8), ("0.jpg", "a", "b", 0.6)
    ]  # fmt: skip
    assert [of.truth_score for of in found] == pytest.approx([0.05, 0.2, 0.4])
    assert len(mistakes(gathered.groups["g"], gathered.entries, worst=1)) == 1


def test_mistakes_of_attributes_are_wrong_claims_and_misses() -> None:
    gathered = made([("a",), ()], [[0.2, 0.1], [0.3, 0.7]])
    found = mistakes(gathered.groups["g"], gathered.entries)
    assert [(of.image, of.truth, of.said) for of in found] == [("0.jpg", "a", "not a"), ("1.jpg", "not b", "b")]
    assert [of.score for of in found] == pytest.approx([0.8, 0.7])
    assert [of.truth_score for of in found] == pytest.approx([0.2, 0.3])


def test_every_other_group_is_a_column_too() -> None:
    groups = {"kind": Group("exclusive", ("x", "y")), "kids": Group("attributes", ("kids",))}
    rows = []
    for at in range(60):
        kids = ("kids",) if at < 25 else () if at < 50 else None
        labels: dict[str, Value] = {"kind": "xy"[at % 2], "kids": kids}
        rows.append((Entry(f"{at}", "0" * 64, labels, "test", {"source": "all"}), {"kind": np.array([0.6, 0.4]),
                     "kids": np.array([0.9])}))  # fmt: skip
    found = evaluate(scoring.gather(rows, groups), ABOUT, FEW)
    assert {of.value: of.count for of in found.groups["kind"].slices} == {"kids": 25, "none": 25, "unknown": 10}
    assert {of.column for of in found.groups["kids"].slices} == {"kind"}, "a column with one value cuts nothing"
    only = evaluate(scoring.gather(rows, groups), ABOUT, replace(FEW, slices=("kids",)))
    assert only.groups["kids"].slices == ()


@pytest.mark.parametrize("options", [Options(slices=("nonsense",)), Options(clusters="nonsense")])
def test_columns_that_are_not_there_are_refused(options: Options) -> None:
    with pytest.raises(DatasetError, match="nonsense") as refused:
        evaluate(made(["a"], [[0.9, 0.1]], "exclusive"), ABOUT, options)
    assert refused.value.code == "column_unknown"


def test_the_same_seed_gives_the_same_evaluation() -> None:
    gathered = made(["a", "b"] * 20, [[0.6, 0.4], [0.7, 0.3]] * 20, "exclusive")
    one, same, other = (evaluate(gathered, ABOUT, Options(rounds=40, seed=seed)) for seed in (1, 1, 2))
    assert one.to_dict() == same.to_dict()
    assert one.to_dict() != other.to_dict()


def test_figures_lie_in_their_intervals() -> None:
    random = np.random.default_rng(0)
    rows = [[value, 1 - value] for value in random.random(200)]
    found = evaluate(made([*random.choice(["a", "b"], 200)], rows, "exclusive"), ABOUT, Options(rounds=200))
    group = found.groups["g"]
    for figure in (*group.figures.values(), *(f for of in group.labels for f in of.figures.values())):
        if not np.isnan(figure.low):
            assert figure.low < figure.high
            assert figure.low - 0.02 <= figure.value <= figure.high + 0.02
