"""Choosing by measurement: what may go live, the fastest of it, and batches in parts of what is compiled."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ml import backends, tuning
from ml.artifact import Artifact
from ml.choice import Choice
from ml.openvino_runtime import parts
from ml.predictor import Predictor
from ml.tiny import expected
from ml.tuning import Measured
from tests.ml.conftest import png


def measured(name: str, batch: int, images_s: float | None, refused: str | None = None) -> Measured:
    family, _, precision = name.partition("-")
    return Measured(Choice(family, precision, batch), images_s, 0.0, refused)  # type: ignore[arg-type]


def test_the_fastest_that_may_go_live_is_chosen() -> None:
    slow, fast = measured("fused-fp32", 8, 90), measured("openvino-fp32", 1, 250)
    refused = measured("openvino-bf16", 8, 480, "scores differ by 0.04, logits by 0.02")
    missing = measured("openvino-bf16", 4, None, "OpenVINO cannot take this network")
    assert tuning.best((refused, slow, fast, missing)) == fast.choice
    assert tuning.best((refused, missing)) is None
    assert tuning.best(()) is None


def test_a_larger_batch_has_to_be_worth_it() -> None:
    one, four = measured("openvino-fp32", 1, 100), measured("openvino-fp32", 4, 102)
    assert tuning.best((four, one)) == one.choice
    assert tuning.best((one, replace(four, images_s=104.0))) == four.choice
    other = measured("fused-fp32", 8, 101)
    assert tuning.best((one, other)) == other.choice, "between families the faster one is chosen"


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (8, (4, 1), [(0, 4, 4), (4, 4, 4)]),
        (6, (4, 1), [(0, 4, 4), (4, 1, 1), (5, 1, 1)]),
        (3, (8, 1), [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
        (5, (3,), [(0, 3, 3), (3, 2, 3)]),
        (0, (4, 1), []),
    ],
)
def test_every_picture_is_in_one_part(count: int, sizes: tuple[int, ...], expected: list[tuple[int, int, int]]) -> None:
    assert list(parts(count, sizes)) == expected


def test_a_tiny_model_is_measured_in_every_way(tiny_tags: Artifact) -> None:
    ticks = iter(range(1_000_000))
    before = torch.get_num_threads()
    result = tuning.tune(tiny_tags, seconds=0, clock=lambda: float(next(ticks)))
    assert torch.get_num_threads() == before
    names = {(each.choice.name, each.choice.batch) for each in result.measured}
    assert ("fused-fp32", 8) in names
    for each in result.measured:
        assert each.images_s is not None
        assert each.images_s > 0
        if each.choice.precision == "bf16":
            assert each.refused is not None, "its card asks for fp32"
    assert result.best is not None
    assert result.best.refused is None


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_openvino_gives_each_picture_its_own_scores_in_any_batch(tiny_tags: Artifact, batch: int) -> None:
    pytest.importorskip("openvino")
    remembered = {"tiny-tags@1": Choice("openvino", "fp32", batch)}
    predictor = Predictor([tiny_tags], choices=remembered)
    backend = predictor.backends["tiny-tags@1"].backend
    assert isinstance(backend, backends.OpenVinoBackend)
    assert backend.compiled.sizes == tuple(sorted({1, batch}, reverse=True))
    colours = [(20 * at, 255 - 20 * at, 7 * at) for at in range(11)]
    for count in (1, 3, 8, 11):
        results = predictor.predict([predictor.prepare(png(colour)) for colour in colours[:count]])
        for colour, result in zip(colours, results, strict=False):
            assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", colour), abs=1e-4)
        assert len(results) == count


def test_what_is_remembered_only_says_what_is_tried_first(tiny_tags: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores must still agree, its precision must still be allowed, and a named family outranks it."""
    fused = {"tiny-tags@1": Choice("fused", "fp32", 8)}
    assert Predictor([tiny_tags], choices=fused).backends["tiny-tags@1"].backend.name == "fused-fp32"
    assert (
        Predictor([tiny_tags], choices=fused, backend="reference").backends["tiny-tags@1"].backend.name
        == "reference-fp32"
    )
    coarse = {"tiny-tags@1": Choice("openvino", "bf16", 4)}
    assert Predictor([tiny_tags], choices=coarse).backends["tiny-tags@1"].backend.name.endswith("-fp32")
    monkeypatch.setitem(backends.TOLERANCE, "fp32", (-1.0, -1.0))
    assert Predictor([tiny_tags], choices=fused).backends["tiny-tags@1"].backend.name == "reference-fp32"


def test_the_probe_goes_through_every_batch_size(tiny_tags: Artifact) -> None:
    """A size whose scores are wrong is found out before it goes live."""
    pytest.importorskip("openvino")
    from ml.openvino_runtime import Compiled

    whole = Compiled.infer
    seen: set[int] = set()

    class Wrong(Compiled):
        def infer(self, batch: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            found = whole(self, batch)
            for at, count, size in parts(len(batch), self.sizes):
                seen.add(size)
                if size == 1:
                    found[at : at + count] += 1e-2 * np.arange(found.shape[1])
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "Compiled", Wrong)
        chosen = Predictor([tiny_tags]).backends["tiny-tags@1"]
    assert seen == {1, 4}
    assert "openvino-fp32" in chosen.refused


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"family": "cuda", "precision": "fp32", "batch": 8},
        {"family": "openvino", "precision": "int4", "batch": 8},
        {"family": "openvino", "precision": "fp32", "batch": 0},
        {"family": "openvino", "precision": "fp32", "batch": True},
        {"family": "openvino", "precision": "fp32", "batch": 10**6},
        {"family": ["openvino"], "precision": {}, "batch": "8"},
    ],
)
def test_what_is_no_choice_is_none(found: dict[str, object]) -> None:
    assert Choice.of(found) is None
    assert Choice.of({"family": "openvino", "precision": "fp32", "batch": 8, "model": "x"}) is not None
