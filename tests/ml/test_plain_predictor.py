"""Without torch: the same scores, the same refusals, and no torch in the process."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ml import agreement, exported, presets
from ml.artifact import Artifact
from ml.card import ModelCard
from ml.choice import Choice
from ml.errors import BackendError, PredictError, PrepareError
from ml.exported import Exported
from ml.plain_predictor import PlainPredictor
from ml.predictor import Predictor
from ml.presets import ImagenetPreset, NsfwjsPreset, WholePreset
from ml.scores import LabelSet
from ml.tiny import expected
from ml.views import VIEWS, View
from ml.working_copy import decode, opened
from tests.ml.conftest import jpeg, png
from tests.ml.test_golden import gaps
from tests.ml.test_networks import mixed_card

pytest.importorskip("openvino")
COLOURS = [(200, 20, 30), (10, 220, 40), (20, 30, 240), (128, 128, 128), (0, 0, 0)]


def network(artifact: Artifact, folder: Path) -> tuple[ModelCard, Exported]:
    folder.mkdir(exist_ok=True)
    exported.write(artifact, folder)
    return artifact.card, exported.read(folder, artifact.sha256)


def plain(artifact: Artifact, folder: Path) -> PlainPredictor:
    return PlainPredictor([network(artifact, folder)])


def grainy(width: int, height: int) -> bytes:
    """A picture with something on every scale, as a working copy."""
    generator = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
    grain = generator.normal(0, 15, (height, width, 3))
    out = io.BytesIO()
    noisy = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


SIDES = [(384, 513), (513, 384), (384, 384), (200, 180), (30, 500), (1, 40), (224, 256), (999, 385)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("preset", "most"),
    [(ImagenetPreset(), 1), (ImagenetPreset(resize=236, size=176), 1), (WholePreset(), 1), (NsfwjsPreset(), 1e-3)],
)
def test_presets_give_what_torch_gives(side: tuple[int, int], preset: presets.Preset, most: float) -> None:
    data = grainy(*side)
    usual, ours = preset(decode(data)).numpy(), preset.plain(opened(data))
    assert (usual.shape, usual.dtype) == (ours.shape, ours.dtype)
    difference = np.abs(usual.astype(float) - ours.astype(float))
    assert difference.max() <= most
    # Enlarged pictures are smooth, so that more of them lies between two grey levels.
    assert difference.mean() <= (0.05 if min(side) >= 384 else 0.4) * most


def test_activations_give_what_torch_gives() -> None:
    labels: LabelSet = mixed_card()
    logits = np.random.default_rng(1).normal(0, 20, (50, len(labels.labels))).astype(np.float32)
    logits[0], logits[1] = 200, -200
    usual = labels.activate(torch.from_numpy(logits))
    ours = labels.plain(logits)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(usual.numpy(), ours, atol=1e-6)
    for least in (0.5, 0.9, 1.0):
        np.testing.assert_array_equal(labels.sure(usual, least).numpy(), labels.plainly_sure(usual.numpy(), least))


def test_right_answers(tiny_tags: Artifact, tiny_moderation: Artifact, tmp_path: Path) -> None:
    networks = [network(artifact, tmp_path / artifact.card.name) for artifact in (tiny_tags, tiny_moderation)]
    predictor = PlainPredictor(networks, batch_size=3)
    assert predictor.models == {"tiny-tags@1": "tags", "tiny-moderation@1": "moderation"}
    assert predictor.backends["tiny-tags@1"].backend.name == "openvino-fp32"
    prepared = [predictor.prepare(png(colour)) for colour in COLOURS]
    assert len(prepared[0].inputs) == 1, "models with one preset share one array"
    results = predictor.predict(prepared)
    for colour, result in zip(COLOURS, results, strict=True):
        assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", colour), abs=1e-4)
        assert result["tiny-moderation@1"].as_dict() == pytest.approx(expected("moderation", colour), abs=1e-4)
    assert predictor.predict([]) == []


def test_golden_scores(nsfwjs_artifact: Artifact, published: Path, tmp_path: Path) -> None:
    folder = published / "nsfwjs-mobilenet_v2/golden-png"
    golden = json.loads((folder / "golden.json").read_text())
    pictures = {name: (folder / name).read_bytes() for name in golden}
    assert max(gaps(plain(nsfwjs_artifact, tmp_path / "n"), golden, pictures)) <= 1e-4


def test_real_tags(imagenet_artifact: Artifact, photos: Path, tmp_path: Path) -> None:
    """One grey level here and there moves no score of a real network by more than two percent."""
    usual, ours = Predictor([imagenet_artifact], backend="reference"), plain(imagenet_artifact, tmp_path / "i")
    names = sorted(photos.glob("*.jpg"))[:24]
    (ref,) = usual.models
    one = np.stack([r[ref].values for r in usual.predict([usual.prepare(name.read_bytes()) for name in names])])
    other = np.stack([r[ref].values for r in ours.predict([ours.prepare(name.read_bytes()) for name in names])])
    assert np.abs(one - other).max() <= 0.02
    assert np.abs(one - other).max(1).mean() <= 0.003


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_the_same_of_arrays(view: View) -> None:
    picture = decode(grainy(61, 40))
    before = picture.numpy().copy()
    np.testing.assert_array_equal(view(picture).numpy(), view(picture.numpy()))
    np.testing.assert_array_equal(picture.numpy(), before)


@pytest.mark.parametrize("views", [2, 4])
def test_a_second_look(tiny_moderation: Artifact, tmp_path: Path, views: int) -> None:
    card = replace(tiny_moderation.card, preset=presets.to_card(NsfwjsPreset(size=8, views=views, sure=0.95)))
    artifact = replace(tiny_moderation, card=card)
    usual, ours = Predictor([artifact], backend="reference"), plain(artifact, tmp_path / "v")
    pictures = [grainy(60 + at, 40) for at in range(9)]
    (ref,) = usual.models
    expected = [r[ref].as_dict() for r in usual.predict([usual.prepare(data) for data in pictures])]
    found = [r[ref].as_dict() for r in ours.predict([ours.prepare(data) for data in pictures])]
    if views == 4:  # the mean colour, which is all that this network looks at, is that of the mirror image
        once = plain(tiny_moderation, tmp_path / "v")
        single = [r[ref].as_dict() for r in once.predict([once.prepare(data) for data in pictures])]
        assert any(one != pytest.approx(two, abs=1e-3) for one, two in zip(single, expected, strict=True))
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, abs=1e-4)


@pytest.mark.parametrize("name", ["network.xml", "network.bin", "probe.npz", "about.json"])
def test_what_is_not_as_it_was_exported_is_not_read(tiny_tags: Artifact, tmp_path: Path, name: str) -> None:
    plain(tiny_tags, tmp_path / "n")
    file = tmp_path / "n" / name
    data = file.read_bytes()
    for damaged in (data[:-1], data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(BackendError) as caught:
            exported.read(tmp_path / "n", tiny_tags.sha256)
        assert caught.value.code == "backend_unavailable"
    file.write_bytes(data)
    exported.read(tmp_path / "n", tiny_tags.sha256)
    with pytest.raises(BackendError):
        exported.read(tmp_path / "n", "0" * 64)


def test_a_network_that_disagrees_is_refused(
    tiny_tags: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, good = network(tiny_tags, tmp_path / "n")
    off = replace(good, logits=good.logits + np.arange(4, dtype=np.float32) * 0.01)
    with pytest.raises(BackendError) as caught:
        PlainPredictor([(tiny_tags.card, off)])
    assert caught.value.code == "backend_disagrees"
    coarse = {"tiny-tags@1": Choice("openvino", "bf16", 8)}
    predictor = PlainPredictor([(tiny_tags.card, good)], choices=coarse)
    assert predictor.backends["tiny-tags@1"].backend.name == "openvino-fp32", "its card asks for fp32"
    monkeypatch.setitem(agreement.TOLERANCE, "fp32", (-1.0, -1.0))
    with pytest.raises(BackendError):
        PlainPredictor([(tiny_tags.card, good)])
    with pytest.raises(PredictError):
        PlainPredictor([])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_working_copy"),
        (b"GIF89a", "not_a_working_copy"),
        (jpeg((1, 2, 3))[:60], "corrupt_working_copy"),
        (jpeg((1, 2, 3), (400, 300))[:-400], "corrupt_working_copy"),
        (b"\xff\xd8\xff", "corrupt_working_copy"),
        (png((1, 2, 3))[:40], "corrupt_working_copy"),
    ],
)
def test_bytes_that_are_no_picture(tiny_tags: Artifact, tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(PrepareError) as caught:
        plain(tiny_tags, tmp_path / "n").prepare(data)
    assert caught.value.code == code


def test_no_torch_from_the_file_to_the_scores(tiny_tags: Artifact, tmp_path: Path) -> None:
    plain(tiny_tags, tmp_path / "n")
    (tmp_path / "red.png").write_bytes(png((200, 20, 30)))
    program = f"""
import sys
from pathlib import Path
from ml import artifact, batcher, exported
from ml.plain_predictor import PlainPredictor
card = artifact.card_of(Path({str(tmp_path / "tiny-tags")!r}), {tiny_tags.sha256!r})
predictor = PlainPredictor([(card, exported.read(Path({str(tmp_path / "n")!r}), {tiny_tags.sha256!r}))])
((_, found),) = batcher.stream([(1, Path({str(tmp_path / "red.png")!r}).read_bytes)], predictor)
assert found["tiny-tags@1"].top(1)[0].label == "red"
assert not {{"torch", "torchvision", "safetensors"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=Path(__file__).parents[2])
