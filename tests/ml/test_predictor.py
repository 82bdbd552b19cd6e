"""The predictor on tiny models, whose right answers are known."""

import io
import threading
from dataclasses import replace

import pytest
import torch
from PIL import Image

from ml import backends
from ml.artifact import Artifact
from ml.choice import Choice
from ml.errors import BackendError, PredictError
from ml.predictor import Predictor, PrepareError
from ml.tiny import expected, make_tiny
from tests.ml.conftest import jpeg, png

COLOURS = [(200, 20, 30), (10, 220, 40), (20, 30, 240), (128, 128, 128), (0, 0, 0)]


def test_every_model_answers_for_every_picture(tiny_tags: Artifact, tiny_moderation: Artifact) -> None:
    predictor = Predictor([tiny_tags, tiny_moderation], batch_size=2, backend="fused")
    assert predictor.models == {"tiny-tags@1": "tags", "tiny-moderation@1": "moderation"}
    results = predictor.predict([predictor.prepare(png(colour)) for colour in COLOURS])
    assert len(results) == len(COLOURS)
    for colour, result in zip(COLOURS, results, strict=True):
        assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", colour), abs=1e-4)
        assert result["tiny-moderation@1"].as_dict() == pytest.approx(expected("moderation", colour), abs=1e-4)
    assert [r["tiny-tags@1"].top(1)[0].label for r in results[:4]] == ["red", "green", "blue", "grey"]


def test_a_jpeg_gives_nearly_the_same(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="reference")
    (result,) = predictor.predict([predictor.prepare(jpeg((200, 20, 30)))])
    assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", (200, 20, 30)), abs=0.02)


def test_models_with_one_preset_share_one_tensor(tiny_tags: Artifact, tiny_moderation: Artifact) -> None:
    predictor = Predictor([tiny_tags, tiny_moderation], backend="reference")
    assert len(predictor.prepare(png((1, 2, 3))).inputs) == 1
    other = replace(tiny_moderation.card, preset={"name": "imagenet", "resize": 16, "size": 8})
    predictor = Predictor([tiny_tags, replace(tiny_moderation, card=other)], backend="reference")
    assert len(predictor.prepare(png((1, 2, 3))).inputs) == 2


@pytest.mark.parametrize("family", ["reference", "fused", "openvino", "auto"])
def test_backends_agree(tiny_tags: Artifact, family: str) -> None:
    if family == "openvino":
        pytest.importorskip("openvino")
    predictor = Predictor([tiny_tags], backend=family, batch_size=3)
    chosen = predictor.backends["tiny-tags@1"]
    assert family == "auto" or chosen.backend.name == f"{family}-fp32"
    assert chosen.gap <= 5e-5
    for count in (1, 2, 3, 4, 7):  # full, partial and several batches
        pictures = [predictor.prepare(png(COLOURS[at % 5])) for at in range(count)]
        results = predictor.predict(pictures)
        for at, result in enumerate(results):
            assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", COLOURS[at % 5]), abs=1e-4)


def test_no_pictures_no_scores(tiny_tags: Artifact) -> None:
    assert Predictor([tiny_tags], backend="reference").predict([]) == []


class Greedy:
    """A backend that runs out of memory above `limit` pictures, as CUDA's allocator says it."""

    name = "greedy"

    def __init__(self, inner: backends.Backend, limit: int, error: Exception) -> None:
        self.inner, self.limit, self.error = inner, limit, error
        self.sizes: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise self.error
        return self.inner.forward(batch)


def greedy(predictor: Predictor, limit: int, error: Exception) -> Greedy:
    (model,) = predictor._models
    backend = Greedy(model.chosen.backend, limit, error)
    predictor._models = [replace(model, chosen=backends.Chosen(backend, 0.0))]
    return backend


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_is_remembered(tiny_tags: Artifact, error: Exception) -> None:
    predictor = Predictor([tiny_tags], backend="reference", batch_size=8)
    backend = greedy(predictor, 3, error)
    pictures = [predictor.prepare(png(COLOURS[at % 5])) for at in range(9)]
    results = predictor.predict(pictures)
    assert [r["tiny-tags@1"].top(1)[0].label for r in results[:3]] == ["red", "green", "blue"]
    assert len(results) == 9
    assert backend.sizes[:3] == [8, 4, 2]
    assert predictor.batch_size == 2
    backend.sizes.clear()
    predictor.predict(pictures[:4])
    assert backend.sizes == [2, 2]


def test_a_single_picture_that_does_not_fit(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="reference")
    greedy(predictor, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(PredictError) as caught:
        predictor.predict([predictor.prepare(png((1, 2, 3)))])
    assert caught.value.code == "out_of_memory"


def test_another_error_is_not_taken_for_memory(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="reference")
    backend = greedy(predictor, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        predictor.predict([predictor.prepare(png((1, 2, 3)))] * 2)
    assert backend.sizes == [2]


def test_a_backend_that_loses_a_picture_is_found_out(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="reference")
    (model,) = predictor._models

    class Short:
        name = "short"

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return model.chosen.backend.forward(batch)[1:]

    predictor._models = [replace(model, chosen=backends.Chosen(Short(), 0.0))]
    with pytest.raises(PredictError) as caught:
        predictor.predict([predictor.prepare(png((1, 2, 3)))] * 3)
    assert caught.value.code == "wrong_output_length"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_working_copy"),
        (b"<html>", "not_a_working_copy"),
        (b"GIF89a", "not_a_working_copy"),
        (jpeg((1, 2, 3))[:60], "corrupt_working_copy"),
        (b"\xff\xd8\xff", "corrupt_working_copy"),
        (png((1, 2, 3))[:40], "corrupt_working_copy"),
    ],
)
def test_bytes_that_are_no_picture(tiny_tags: Artifact, data: bytes, code: str) -> None:
    with pytest.raises(PrepareError) as caught:
        Predictor([tiny_tags], backend="reference").prepare(data)
    assert caught.value.code == code


def test_pillow_would_decode_the_same_pixels() -> None:
    from ml.working_copy import decode, with_pillow

    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 256, (6, 5, 3), dtype=torch.uint8, generator=generator)
    buffer = io.BytesIO()
    image = Image.fromarray(noise.numpy()).resize((97, 61), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    difference = decode(buffer.getvalue()).int() - with_pillow(buffer.getvalue()).int()
    assert int(difference.abs().max()) <= 1
    assert torch.equal(decode(png((1, 2, 3))), with_pillow(png((1, 2, 3))))


def test_a_predictor_of_nothing_or_of_twice_the_same(tiny_tags: Artifact) -> None:
    for artifacts, code in [([], "no_models"), ([tiny_tags, tiny_tags], "duplicate_model")]:
        with pytest.raises(PredictError) as caught:
            Predictor(artifacts)
        assert caught.value.code == code


def test_threads_are_what_was_asked_for(tiny_tags: Artifact) -> None:
    Predictor([tiny_tags], backend="reference", threads=1)
    assert torch.get_num_threads() == 1
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [1]


def test_a_backend_that_is_not_here(tiny_tags: Artifact) -> None:
    wanted = [("magic", "cpu", "backend_unknown"), ("cuda", "cpu", "backend_unavailable")]
    for family, device, code in wanted:
        with pytest.raises(BackendError) as caught:
            Predictor([tiny_tags], backend=family, device=device)
        assert caught.value.code == code


def test_a_backend_that_disagrees_is_refused(tiny_tags: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no difference allowed nothing but the reference may go live."""
    monkeypatch.setitem(backends.TOLERANCE, "fp32", (-1.0, -1.0))
    predictor = Predictor([tiny_tags])
    chosen = predictor.backends["tiny-tags@1"]
    assert chosen.backend.name == "reference-fp32"
    assert "fused-fp32" in chosen.refused
    with pytest.raises(BackendError) as caught:
        Predictor([tiny_tags], backend="fused")
    assert caught.value.code == "backend_disagrees"


def test_precision_is_never_lower_than_the_card_allows(tiny_tags: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = replace(tiny_tags, card=replace(tiny_tags.card, precision="bf16"))
    strict = backends._candidates("auto", "fp32", torch.device("cpu"), Choice("openvino", "bf16", 4))
    assert {candidate.precision for candidate in strict} == {"fp32"}
    strict = backends._candidates("auto", "fp32", torch.device("cuda"))
    assert [candidate.name for candidate in strict] == ["cuda-fp32"]
    for able, wanted in ((True, ["cuda-bf16", "cuda-fp32"]), (False, ["cuda-fp32"])):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        found = backends._candidates("auto", "bf16", torch.device("cuda"))
        assert [candidate.name for candidate in found] == wanted
    names = {candidate.family for candidate in backends._candidates("fused", "bf16", torch.device("cpu"))}
    assert names == {"fused"}
    predictor = Predictor([allowed], backend="fused")
    name = predictor.backends["tiny-tags@1"].backend.name
    assert name in ({"fused-bf16", "fused-fp32"} if backends.cpu_has_bf16() else {"fused-fp32"})


def test_folding_leaves_no_batch_norm_behind() -> None:
    from ml.architectures import build

    for name in ("mobilenet_v2", "nsfwjs_mobilenet_v2", "resnet18"):
        network = build(name, 5)
        folded = backends._folded(network)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees(tiny_tags: Artifact, tiny_moderation: Artifact) -> None:
    predictor = Predictor([tiny_tags, tiny_moderation], device="cuda")
    results = predictor.predict([predictor.prepare(png(colour)) for colour in COLOURS])
    for colour, result in zip(COLOURS, results, strict=True):
        assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", colour), abs=1e-4)


def test_tiny_models_are_tiny(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "tiny"
    make_tiny(folder, "moderation", name="nsfw-test", version="7")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8192
