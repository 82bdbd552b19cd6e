"""Facts of pictures: the PDQ hash against the reference, colour names, sharpness."""

import importlib.util

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from ml.colours import NAMES, dominant_colours, name_of
from ml.facts import facts, hamming, pdq, sharpness
from ml.images import Limits, decode, encode_working_copy, read
from tests.ml.pictures import canonical, encoded


def scene(size: int = 512, seed: int = 3) -> Image.Image:
    """A busy picture: PDQ wants detail."""
    chance = np.random.RandomState(seed)
    image = canonical((size, size * 3 // 4))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = chance.randint(0, size), chance.randint(0, size * 3 // 4)
        reach = chance.randint(size // 40, size // 6)
        draw.ellipse((x, y, x + reach, y + reach * 2 // 3), fill=tuple(int(v) for v in chance.randint(0, 256, 3)))
    return image


# Of pdqhash 0.2.8 (Meta's own C++ under Python), for scene() and scene(300, seed=11).
REFERENCE = (
    "5dd1571231e7cfb5b9a78e3ce2e98e25691c253b1162675a14ec45ca5a34a63c",
    "84b686c55201b1f90ca1c078eb8d90ce7ce5a739db1d99e92d61e30bfb4ccabc",
)


def test_the_hash_is_that_of_the_reference() -> None:
    for image, known in zip((scene(), scene(300, seed=11)), REFERENCE, strict=True):
        found, quality = pdq(image)
        # Equal here; another BLAS may round a coefficient to the other side of the median.
        assert hamming(found, bytes.fromhex(known)) <= 2
        assert quality == 100


@pytest.mark.skipif(importlib.util.find_spec("pdqhash") is None, reason="pdqhash is not installed (it has no wheel)")
def test_the_hash_is_that_of_pdqhash() -> None:
    import pdqhash

    for seed in range(20):
        image = scene(200 + 17 * seed, seed)
        bits, quality = pdqhash.compute(np.asarray(image))
        assert pdq(image) == (np.packbits(bits).tobytes(), quality)


def test_the_same_picture_at_other_sizes_and_qualities_has_nearly_the_same_hash() -> None:
    image = scene(1200)
    whole, quality = pdq(image)
    assert quality == 100
    for changed in (
        image.resize((600, 450), Image.Resampling.LANCZOS),
        image.resize((150, 112), Image.Resampling.LANCZOS),
        image.resize((900, 900), Image.Resampling.LANCZOS),
        decode(encoded(image, "JPEG", quality=30)),
        decode(encode_working_copy(image)),
        read(encoded(image, "JPEG"), Limits(draft_short_side=200)).image,
    ):
        assert hamming(whole, pdq(changed)[0]) <= 24
        assert hamming(whole, facts(changed)["pdq"]) <= 24


def test_a_hash_of_folded_pixels_is_nearly_that_of_all() -> None:
    for size, seed in ((533, 5), (640, 6), (1100, 7), (1900, 8)):
        image = scene(size, seed)
        found = facts(image, ["pdq"])
        known, quality = pdq(image)
        assert hamming(found["pdq"], known) <= 10
        assert abs(found["pdq_quality"] - quality) <= 3


def test_turned_mirrored_and_other_pictures_are_far_away() -> None:
    image = scene()
    whole, _ = pdq(image)
    for turn in Image.Transpose:
        assert hamming(whole, pdq(image.transpose(turn))[0]) > 80
    assert hamming(whole, pdq(scene(seed=4))[0]) > 80


def test_quality_says_whether_there_is_anything_to_hash() -> None:
    assert pdq(Image.new("RGB", (300, 200), (90, 120, 40)))[1] == 0
    assert pdq(canonical((300, 200)))[1] < pdq(scene())[1]


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (16_384, 2), (63, 65), (5000, 64)])
def test_extreme_shapes_have_facts_too(size: tuple[int, int]) -> None:
    found = facts(Image.new("RGB", size, (200, 30, 40)))
    assert len(found["pdq"]) == 32
    assert found["colours"][0]["share"] == 1
    assert found["sharpness"] == 0


def test_hamming_counts_bits() -> None:
    assert hamming(b"\x00\xff", b"\x00\xff") == 0
    assert hamming(b"\x00\xff", b"\x01\x7f") == 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("000000", "black"),
        ("ffffff", "white"),
        ("12204d", "navy"),
        ("ddcdb2", "beige"),
        ("c01025", "red"),
        ("808080", "grey"),
        ("f5a9bf", "pink"),
        ("2b8a3c", "green"),
        ("7a4a2b", "brown"),
        ("0e7878", "teal"),
        ("ffdf10", "yellow"),
    ],
)
def test_flat_pictures_have_the_name_a_shopper_would_use(value: str, name: str) -> None:
    found = dominant_colours(Image.new("RGB", (80, 60), f"#{value}"))
    assert found == [{"name": name, "hex": f"#{value}", "share": 1.0}]


def test_every_colour_of_the_table_bears_its_own_name() -> None:
    for name, values in NAMES.items():
        for value in values:
            assert name_of(np.array(list(bytes.fromhex(value)), dtype=float)) == name


def test_colours_are_shares_in_order_and_one_per_name() -> None:
    image = Image.new("RGB", (100, 100), "#ffffff")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 99, 29), fill="#14204a")
    draw.rectangle((0, 30, 99, 39), fill="#c8102e")
    draw.point((50, 50), fill="#00ff00")
    found = dominant_colours(image)
    assert [colour["name"] for colour in found] == ["white", "navy", "red"]
    assert [colour["share"] for colour in found] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    many = dominant_colours(scene())
    assert len({colour["name"] for colour in many}) == len(many) <= 6
    assert sum(colour["share"] for colour in many) <= 1.001
    assert [c["share"] for c in many] == sorted((c["share"] for c in many), reverse=True)


def test_noise_has_colours_too_and_costs_no_more_clusters() -> None:
    noise = np.random.RandomState(2).randint(0, 256, (300, 300, 3), dtype=np.uint8)
    found = dominant_colours(Image.fromarray(noise))
    assert 1 <= len(found) <= 6
    assert sum(colour["share"] for colour in found) <= 1.001


def test_a_colour_stays_when_the_picture_is_stored_again() -> None:
    image = scene(533)
    before = {colour["name"]: colour["share"] for colour in dominant_colours(image)}
    again = {c["name"]: c["share"] for c in dominant_colours(decode(encoded(image, "JPEG", quality=75)))}
    moved = sum(abs(before.get(name, 0) - again.get(name, 0)) for name in before | again) / 2
    assert moved <= 0.15


def test_shades_of_one_colour_are_one_colour() -> None:
    image = Image.new("RGB", (64, 64), "#14204a")
    ImageDraw.Draw(image).rectangle((0, 0, 31, 63), fill="#182450")
    found = dominant_colours(image)
    assert [(colour["name"], colour["share"]) for colour in found] == [("navy", 1.0)]


def test_sharpness_falls_with_blur_and_does_not_depend_on_size() -> None:
    image = scene(1024)
    crisp = sharpness(image)
    values = [sharpness(image.filter(ImageFilter.GaussianBlur(radius))) for radius in (2, 6, 15)]
    assert crisp > values[0] > values[1] > values[2] > 0
    assert sharpness(image.resize((512, 384), Image.Resampling.LANCZOS)) == pytest.approx(crisp, rel=0.35)
    assert sharpness(Image.new("RGB", (50, 50), "#808080")) == 0


def test_only_what_is_wanted_is_computed() -> None:
    assert set(facts(scene(), ["pdq"])) == {"pdq", "pdq_quality"}
    assert set(facts(scene(), ["colours"])) == {"colours"}
    assert set(facts(scene(), ["sharpness"])) == {"sharpness"}
    assert facts(scene(), []) == {}
