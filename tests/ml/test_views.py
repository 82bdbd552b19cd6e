"""A second look: the views themselves, and the mean over them for what the first scores leave in doubt."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from ml import backends, presets
from ml.artifact import Artifact, load, save
from ml.errors import ArtifactError, PredictError
from ml.images import decode, encode_working_copy
from ml.predictor import Predictor
from ml.scores import LabelSet
from ml.tiny import make_tiny
from ml.views import VIEWS, View
from tests.ml.conftest import png

BLUE, MUDDY = (10, 20, 230), (110, 95, 95)  # the tiny model is sure of the first, in doubt about the second


def seeing(artifact: Artifact, views: int, sure: float = 0.9) -> Artifact:
    preset = presets.NsfwjsPreset(size=artifact.card.preset["size"], views=views, sure=sure)
    return replace(artifact, card=replace(artifact.card, preset=presets.to_card(preset)))


def framed() -> bytes:
    """Grey with a frame of one pixel, dull red and brown: margins count for a network that looks at colours."""
    image = Image.new("RGB", (50, 40), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 49, 39), outline=(150, 110, 110))
    draw.line((49, 0, 49, 20), fill=(150, 140, 100))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_views_of_a_small_picture() -> None:
    picture = torch.arange(3 * 50 * 100, dtype=torch.int64).remainder(256).to(torch.uint8).view(3, 50, 100)
    assert torch.equal(VIEWS[0](picture), picture)
    assert torch.equal(View(mirrored=True)(picture), picture.flip(-1))
    cut = View(margin=0.02)(picture)
    assert torch.equal(cut, picture[:, 1:-1, 2:-2])
    wide = View(margin=-0.03)(picture)
    assert wide.shape == (3, 54, 106)  # 1.5 rows are 2: round() goes to the even
    assert torch.equal(wide[:, 2:-2, 3:-3], picture)
    assert torch.equal(wide[:, 2:-2, 0], picture[:, :, 0])
    assert torch.equal(wide[:, -1, 3:-3], picture[:, -1])


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_single_pixel(view: View) -> None:
    assert view(torch.zeros(3, 1, 1, dtype=torch.uint8)).shape == (3, 1, 1)


def test_the_cards_of_one_view_are_as_they_were() -> None:
    """Digests of installed artifacts hold their cards."""
    assert presets.to_card(presets.NsfwjsPreset()) == {"name": "nsfwjs", "size": 224}
    assert presets.from_card({"name": "nsfwjs", "size": 224}).views == 1
    several = presets.NsfwjsPreset(views=2)
    assert presets.to_card(several) == {"name": "nsfwjs", "size": 224, "views": 2, "sure": 0.9}
    assert presets.from_card(presets.to_card(several)) == several


@pytest.mark.parametrize(
    ("field", "value"),
    [("views", 0), ("views", len(VIEWS) + 1), ("views", True), ("views", "2"), ("sure", 0.4), ("sure", float("nan"))],
)
def test_a_card_that_asks_for_views_that_are_not_there(field: str, value: object) -> None:
    with pytest.raises(ArtifactError) as caught:
        presets.from_card({"name": "nsfwjs", field: value})
    assert (caught.value.code, caught.value.field) == ("card_invalid", f"preset.{field}")
    with pytest.raises(ArtifactError):
        presets.from_card({"name": "whole", "views": 2})


def by_hand(artifact: Artifact, data: bytes, views: int) -> list[dict[str, float]]:
    """The scores of every view, each as a picture of its own, from the model that looks once."""
    pixels = torch.frombuffer(bytearray(Image.open(io.BytesIO(data)).convert("RGB").tobytes()), dtype=torch.uint8)
    size = Image.open(io.BytesIO(data)).size
    picture = pixels.view(size[1], size[0], 3).permute(2, 0, 1)
    predictor = Predictor([artifact], backend="reference")
    found = []
    for view in VIEWS[:views]:
        buffer = io.BytesIO()
        Image.fromarray(view(picture).permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
        found.append(predictor.predict([predictor.prepare(buffer.getvalue())])[0][artifact.card.ref].as_dict())
    return found


@pytest.mark.parametrize("family", ["reference", "fused", "openvino"])
@pytest.mark.parametrize("views", [2, 3, 4])
def test_scores_are_the_mean_over_the_views(tiny_moderation: Artifact, views: int, family: str) -> None:
    if family == "openvino":
        pytest.importorskip("openvino")
    single = by_hand(tiny_moderation, framed(), views)
    if views > 2:
        assert single[0] != pytest.approx(single[2], abs=1e-3)  # else a mean over copies of one score would pass
    mean = {label: sum(each[label] for each in single) / views for label in single[0]}
    predictor = Predictor([seeing(tiny_moderation, views, sure=1.0)], backend=family)
    (ref,) = predictor.models
    (result,) = predictor.predict([predictor.prepare(framed())])
    assert result[ref].as_dict() == pytest.approx(mean, abs=1e-4)


class Counting:
    """A backend that remembers the sizes of its batches; `lost` rows are missing from all but the first."""

    name = "counting"

    def __init__(self, inner: backends.Backend, lost: int = 0) -> None:
        self.inner, self.lost = inner, lost
        self.sizes: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        return self.inner.forward(batch)[self.lost if len(self.sizes) > 1 else 0 :]


def counting(predictor: Predictor, lost: int = 0) -> Counting:
    backend = Counting(predictor._models[0].chosen.backend, lost)
    model = replace(predictor._models[0], chosen=backends.Chosen(backend, 0.0))
    predictor._models = [model, *predictor._models[1:]]
    return backend


def test_only_what_is_in_doubt_is_seen_again(tiny_moderation: Artifact) -> None:
    predictor = Predictor([seeing(tiny_moderation, 4)], backend="reference", batch_size=4)
    backend = counting(predictor)
    colours = [BLUE, MUDDY, BLUE, MUDDY, BLUE, BLUE]
    results = predictor.predict([predictor.prepare(png(colour)) for colour in colours])
    assert backend.sizes == [4, 2, 2, 2, 2]  # four, three more looks at two of them, then two of which it is sure
    assert len(results) == 6


def test_scores_do_not_depend_on_the_neighbours_in_the_batch(tiny_moderation: Artifact) -> None:
    predictor = Predictor([seeing(tiny_moderation, 4, sure=1.0)], backend="reference", batch_size=3)
    (ref,) = predictor.models
    data = [framed(), png(BLUE), png(MUDDY), framed(), png(MUDDY)]
    together = predictor.predict([predictor.prepare(each) for each in data])
    for each, result in zip(data, together, strict=True):
        (alone,) = predictor.predict([predictor.prepare(each)])
        assert result[ref].as_dict() == pytest.approx(alone[ref].as_dict(), abs=1e-6)


def test_a_backend_that_loses_a_view_is_found_out(tiny_moderation: Artifact) -> None:
    predictor = Predictor([seeing(tiny_moderation, 2)], backend="reference")
    counting(predictor, lost=1)
    with pytest.raises(PredictError) as caught:
        predictor.predict([predictor.prepare(png(MUDDY))] * 2)
    assert caught.value.code == "wrong_output_length"


def test_models_of_one_and_of_several_views_side_by_side(tiny_tags: Artifact, tiny_moderation: Artifact) -> None:
    """The tagger's scores stay what they are, and the pixels are kept only where a model may want them."""
    alone = Predictor([tiny_tags], backend="reference")
    both = Predictor([tiny_tags, seeing(tiny_moderation, 4, sure=1.0)], backend="reference")
    assert alone.prepare(png(MUDDY)).picture is None
    assert both.prepare(png(MUDDY)).picture is not None
    (ref,) = alone.models
    (one,), (two,) = (p.predict([p.prepare(framed())]) for p in (alone, both))
    assert two[ref].as_dict() == one[ref].as_dict()


def test_who_is_sure(tmp_path: Path) -> None:
    softmax = LabelSet(make_tiny(tmp_path / "softmax", "moderation").card)
    rows = torch.tensor([[0.9, 0.1, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [float("nan"), 0.95, 0, 0, 0]])
    assert softmax.sure(rows, 0.9).tolist() == [True, False, False]
    card = replace(make_tiny(tmp_path / "tags", "tags").card, head={"colour": "sigmoid"})
    rows = torch.tensor([[0.95, 0.97, 0.01, 0.02], [0.95, 0.6, 0.01, 0.02], [0.02, 0.0, 0.05, 0.1]])
    assert LabelSet(card).sure(rows, 0.9).tolist() == [True, False, True]


def test_a_version_with_views_is_another_artifact(tiny_moderation: Artifact, tmp_path: Path) -> None:
    """Scores are stored by name@version: its number of views must be in what the version's digest covers."""
    again = seeing(tiny_moderation, 2)
    saved = save(tmp_path / "again", again.card, again.state)
    assert saved.sha256 != tiny_moderation.sha256
    assert load(tmp_path / "again").card.preset["views"] == 2


def test_mirrored_photos_get_nearly_the_same_scores(nsfwjs_artifact: Artifact, photos: Path) -> None:
    """Two views are the picture and its mirror image, whichever of them came in; one view says other things."""
    names = sorted(path.name for path in photos.iterdir())[:40]
    gaps = {}
    for views in (1, 2):
        predictor = Predictor([seeing(nsfwjs_artifact, views, sure=1.0)])
        (ref,) = predictor.models
        moved = []
        for name in names:
            image = decode((photos / name).read_bytes())
            pair = [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
            found = predictor.predict([predictor.prepare(encode_working_copy(each)) for each in pair])
            moved.append(float(abs(found[0][ref].values - found[1][ref].values).max()))
        gaps[views] = sum(moved) / len(moved)
    assert gaps[2] < gaps[1] / 4
