"""Decoding under limits: what is refused and why, and that every way to store a picture gives the same pixels."""

import random
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from ml.images import FORMATS, ImageError, Limits, bounded, decode, encode_working_copy, read, sniff, working_copy
from tests.ml.pictures import (
    canonical,
    encoded,
    gap,
    huge_pictures,
    lying,
    png,
    png_chunk,
    refused_files,
    stored_turned,
)

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = Limits()
GPS_MARK = b"48 deg 51 min"
LOSSY = {"quality": 95}


def refusal(data: bytes, limits: Limits = DEFAULT) -> str:
    with pytest.raises(ImageError) as caught:
        read(data, limits)
    return caught.value.code


@pytest.mark.parametrize("format", FORMATS)
def test_every_allowed_format_is_sniffed_and_decoded(format: str) -> None:
    data = encoded(canonical(), format)
    assert sniff(data) == format
    picture = read(data)
    assert (picture.format, picture.width, picture.height) == (format, 96, 64)
    assert gap(picture.image, canonical()) < 6


@pytest.mark.parametrize("name", refused_files())
def test_what_only_calls_itself_a_picture_is_refused(name: str) -> None:
    data, code = refused_files()[name]
    assert refusal(data) == code


@pytest.mark.parametrize("format", FORMATS)
def test_a_magic_number_followed_by_garbage_is_a_corrupt_or_truncated_picture(format: str) -> None:
    data = encoded(canonical(), format)
    noise = random.Random(7).randbytes(4000)
    assert refusal(data[:16] + noise) in {"corrupt_image", "truncated_image", "too_many_pixels", "side_too_long"}
    assert refusal(data[:20]) in {"corrupt_image", "truncated_image"}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_half_a_picture_is_refused(format: str) -> None:
    data = encoded(canonical((300, 200)), format)
    assert refusal(data[: len(data) // 2]) in {"truncated_image", "corrupt_image"}


def test_a_cut_jpeg_is_called_truncated() -> None:
    data = encoded(canonical((300, 200)), "JPEG")
    assert refusal(data[: len(data) // 2]) == "truncated_image"


def test_byte_pixel_and_side_limits_each_have_their_code() -> None:
    data = encoded(canonical((200, 100)), "PNG")
    assert refusal(data, Limits(max_bytes=len(data) - 1)) == "too_large"
    assert refusal(data, Limits(max_side=199)) == "side_too_long"
    assert refusal(data, Limits(max_pixels=19_999)) == "too_many_pixels"
    exact = Limits(max_bytes=len(data), max_side=200, max_pixels=20_000)
    assert read(data, exact).image.size == (200, 100)


@pytest.mark.parametrize("name", huge_pictures())
def test_a_declared_giant_is_refused(name: str) -> None:
    assert refusal(huge_pictures()[name]) in {"too_many_pixels", "side_too_long"}


def test_giants_are_refused_before_their_pixels_are_allocated(tmp_path: Path) -> None:
    """In a process of its own, whose peak of address space may not grow by more than a few MB."""
    for name, data in huge_pictures().items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    program = """
import pathlib, re, sys
from ml.images import ImageError, read
def peak():
    return int(re.search(r"VmPeak:\\s+(\\d+)", open("/proc/self/status").read())[1])
files = [(path.name, path.read_bytes()) for path in pathlib.Path(sys.argv[1]).iterdir()]
before = peak()
for name, data in files:
    try:
        read(data)
        print(name, "decoded")
    except ImageError as error:
        print(name, error.code, peak() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to see the address space")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(huge_pictures())
    for name, code, kib in lines:
        assert code in {"too_many_pixels", "side_too_long"}, name
        assert int(kib) < 16_000, name


def test_compressed_text_that_unpacks_to_50_mb_is_a_bomb() -> None:
    import zlib

    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(50 * 2**20)))
    assert refusal(png(1, 1, extra=text, rows=b"\0abc")) == "decompression_bomb"
    assert read(png(1, 1, rows=b"\0abc")).image.getpixel((0, 0)) == (97, 98, 99)


def test_only_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), (200, 10 * n, 0)) for n in range(20)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    later = data.index(b"\x21\xf9", data.index(b"\x21\xf9") + 2)  # the second frame's control block
    picture = read(data[:later] + b"\xff" * 200_000)
    assert picture.image.getpixel((4, 4)) == (200, 0, 0)
    for format in ("WEBP", "PNG", "AVIF"):
        animated = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        red, green, _ = decode(animated).getpixel((4, 4))  # type: ignore[misc]
        assert abs(red - 200) < 8
        assert green < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied(format: str, orientation: int) -> None:
    options = LOSSY if format in ("JPEG", "WEBP", "AVIF") else {}
    picture = read(stored_turned(canonical(), orientation, format, **options))
    assert (picture.width, picture.height) == (96, 64)
    assert gap(picture.image, canonical()) < 5


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = stored_turned(canonical(), 6, "JPEG")
    at = data.index(b"Exif\0\0") + 6
    assert read(data[:at] + b"\xff" * 8 + data[at + 8 :]).image.size == (64, 96)


def _sixteen(image: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    grey = np.asarray(image.convert("L"), dtype=np.uint16)
    return (grey * 257).reshape(grey.shape[0], grey.shape[1])


def _grey_twin(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = _sixteen(canonical())
    twin = _grey_twin(canonical())
    assert gap(decode(encoded(Image.fromarray(deep), "PNG")), twin) == 0
    assert gap(decode(encoded(Image.fromarray(deep), "TIFF")), twin) == 0
    assert gap(decode(encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")), twin) == 0
    big_endian = Image.frombytes("I;16B", (96, 64), deep.astype(">u2").tobytes())
    assert gap(decode(encoded(big_endian, "TIFF")), twin) == 0


def test_sixteen_bit_colour_is_scaled_not_clipped() -> None:
    deep = np.asarray(canonical(), dtype=">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    assert gap(decode(png(96, 64, bits=16, colour=2, rows=rows)), canonical()) == 0


def test_floats_are_read_by_their_range() -> None:
    grey = np.asarray(canonical().convert("L"), dtype=np.float32)
    twin = _grey_twin(canonical())
    assert gap(decode(encoded(Image.fromarray(grey / 255), "TIFF")), twin) <= 0.5
    assert gap(decode(encoded(Image.fromarray(grey), "TIFF")), twin) == 0
    stretched = np.asarray(decode(encoded(Image.fromarray(grey * 40 - 900), "TIFF")))
    assert (stretched.min(), stretched.max()) == (0, 255)
    grey[0, 0] = np.nan
    grey[0, 1] = np.inf
    assert gap(decode(encoded(Image.fromarray(grey), "TIFF")), twin) < 0.2


def test_cmyk_and_lab_give_the_same_picture() -> None:
    assert gap(decode(encoded(canonical().convert("CMYK"), "JPEG", **LOSSY)), canonical()) < 5
    assert gap(decode(encoded(canonical().convert("CMYK"), "TIFF")), canonical()) < 1
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(canonical(), to_lab)
    assert lab is not None
    assert gap(decode(encoded(lab, "TIFF")), canonical()) < 4


def test_palettes_give_the_picture_of_their_colours() -> None:
    flat = canonical().quantize(32)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        assert gap(decode(encoded(flat, format)), flat.convert("RGB")) == 0
    bilevel = canonical().convert("1")
    for format in ("PNG", "BMP", "TIFF"):
        assert gap(decode(encoded(bilevel, format)), bilevel.convert("RGB")) == 0


def test_alpha_is_laid_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    for format in ("PNG", "TIFF"):
        red, green, blue = decode(encoded(half, format)).getpixel((1, 1))  # type: ignore[misc]
        assert (red, green, blue) == (255, 127, 127)
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    for format in ("PNG", "WEBP", "GIF", "AVIF", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        assert min(decode(encoded(clear, format, **options)).getpixel((1, 1))) > 250  # type: ignore[type-var]
    grey = Image.new("LA", (4, 4), (0, 0))
    assert decode(encoded(grey, "PNG")).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    assert decode(encoded(palette, "PNG", transparency=0)).getpixel((1, 1)) == (255, 255, 255)
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert decode(encoded(keyed, "PNG", transparency=(1, 2, 3))).getpixel((1, 1)) == (255, 255, 255)


def test_a_large_jpeg_is_decoded_smaller_but_never_below_twice_the_wanted_side() -> None:
    data = encoded(canonical((3200, 2400)), "JPEG")
    picture = read(data, Limits(draft_short_side=384))
    assert (picture.width, picture.height) == (3200, 2400)
    assert 2 * 384 <= min(picture.image.size) < 2400
    assert decode(data).size == (3200, 2400)
    barely = read(encoded(canonical((1600, 1200)), "JPEG"), Limits(draft_short_side=384))
    assert barely.image.size == (1600, 1200)
    exact = encode_working_copy(decode(data))
    drafted = encode_working_copy(picture.image)
    assert gap(decode(exact), decode(drafted)) < 1


def test_the_working_copy_has_a_bounded_short_side_and_is_never_enlarged() -> None:
    for size, wanted in (((1000, 500), (768, 384)), ((500, 1000), (384, 768)), ((300, 200), (300, 200))):
        copy = Image.open(BytesIO(encode_working_copy(canonical(size))))
        assert copy.size == wanted
    assert Image.open(BytesIO(encode_working_copy(canonical((1000, 500)), short_side=100))).size == (200, 100)
    assert len(encode_working_copy(canonical(), quality=40)) < len(encode_working_copy(canonical(), quality=95))
    assert Image.open(BytesIO(encode_working_copy(Image.new("RGB", (9000, 1)), short_side=1))).size == (9000, 1)


def test_the_working_copy_is_444_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken by Jane"
    exif.get_ifd(0x8825)[1] = GPS_MARK.decode()
    data = encoded(canonical(), "JPEG", exif=exif, comment=b"call me", icc_profile=b"profile" * 9, dpi=(300, 300))
    assert GPS_MARK in data
    for work in (encode_working_copy(decode(data)), working_copy(read(data))):
        for secret in (b"Exif", GPS_MARK, b"Jane", b"call me", b"profile", b"ICC"):
            assert secret not in work
        assert set(Image.open(BytesIO(work)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    opened = JpegImageFile(BytesIO(encode_working_copy(decode(data))))
    assert [layer[1:3] for layer in opened.layer] == [(1, 1)] * 3
    # Also of a picture that did not come through decode.
    assert b"call me" not in encode_working_copy(Image.open(BytesIO(data)))


def _layout(data: bytes) -> tuple[tuple[int, int], int, list[int]]:
    """Size, how many luma samples a chroma sample stands for, and the luma table of a JPEG."""
    opened = JpegImageFile(BytesIO(data))
    across, down = opened.layer[0][1:3]
    return opened.size, across * down, list(opened.quantization[0])


def _detailed(size: tuple[int, int]) -> Image.Image:
    """Grain in its light and soft colours, as photos have."""
    chance = np.random.RandomState(4)
    grain = chance.randint(60, 190, (size[1] // 4 + 1, size[0] // 4 + 1, 1))
    tint = chance.randint(0, 30, (size[1] // 64 + 1, size[0] // 64 + 1, 3)).astype(np.uint8)
    light = Image.fromarray(np.repeat(grain, 3, axis=2).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return ImageChops.add(light, Image.fromarray(tint).resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("subsampling", "each"), [(0, 1), (1, 2), (2, 4)])
def test_a_jpeg_that_is_small_enough_keeps_its_pixels_and_its_steps(subsampling: int, each: int) -> None:
    data = encoded(_detailed((400, 533)), "JPEG", quality=70, subsampling=subsampling)
    work = working_copy(read(data))
    assert _layout(work) == _layout(data) == ((400, 533), each, _layout(data)[2])
    assert len(work) < 1.1 * len(data)
    # Nearly nothing is lost again; with finer steps the loss is several times as great.
    finer = encode_working_copy(decode(data), short_side=400)
    assert gap(decode(work), decode(data)) < 0.5 * gap(decode(finer), decode(data))


def test_no_working_copy_is_finer_than_asked_for_or_takes_tables_of_strangers() -> None:
    fine = encoded(_detailed((300, 200)), "JPEG", quality=97, subsampling=2)
    asked = encoded(_detailed((300, 200)), "JPEG", quality=90, subsampling=2)
    assert _layout(working_copy(read(fine))) == _layout(asked)
    odd = encoded(_detailed((300, 200)), "JPEG", qtables=[list(range(1, 65))] * 2, subsampling=2)
    assert _layout(working_copy(read(odd))) == _layout(asked)
    coarse = encoded(_detailed((300, 200)), "JPEG", quality=20, subsampling=2)
    assert _layout(working_copy(read(coarse))) == _layout(asked)


def test_pictures_that_are_resized_turned_or_no_common_jpeg_get_full_colour_and_the_quality_asked_for() -> None:
    size, each, table = _layout(encode_working_copy(_detailed((300, 200))))
    assert (size, each) == ((300, 200), 1)
    for data, wanted in (
        (encoded(_detailed((500, 700)), "JPEG", quality=70), (384, 538)),
        (encoded(_detailed((400, 533)), "PNG"), (400, 533)),
        (encoded(_detailed((400, 533)).convert("L"), "JPEG", quality=70), (400, 533)),
        (encoded(_detailed((400, 533)).convert("CMYK"), "JPEG", quality=70), (400, 533)),
        (stored_turned(_detailed((400, 533)), 6, "JPEG", quality=70), (400, 533)),
        (encoded(_detailed((3200, 2400)), "JPEG", quality=70), (512, 384)),
    ):
        picture = read(data, Limits(draft_short_side=384))
        assert picture.steps is None or min(picture.image.size) > 480
        assert _layout(working_copy(picture)) == (wanted, 1, table)


def test_a_reduction_before_the_resize_changes_pixels_little() -> None:
    for size in ((1000, 1333), (1400, 1000), (3000, 2000)):
        image = _detailed((400, 300)).resize(size, Image.Resampling.BICUBIC)
        small = bounded(image, 384)
        assert min(small.size) == 384
        assert gap(small, image.resize(small.size, Image.Resampling.LANCZOS)) < 1.5


def test_only_what_is_hardly_too_large_is_kept_as_it_is() -> None:
    assert _layout(working_copy(read(encoded(_detailed((480, 600)), "JPEG"))))[0] == (480, 600)
    assert _layout(working_copy(read(encoded(_detailed((481, 600)), "JPEG"))))[0] == (384, 479)
    # Where somebody asks for a bound, it is one.
    assert _layout(encode_working_copy(_detailed((480, 600))))[0] == (384, 480)


def test_png_text_and_trailing_bytes_stay_behind() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Jane")
    data = encoded(canonical(), "PNG", pnginfo=text) + b"<script>alert(1)</script>PK\x03\x04"
    work = encode_working_copy(decode(data))
    assert b"script" not in work
    assert b"PK\x03\x04" not in work
    assert b"Jane" not in work


def test_a_lying_webp_is_measured_before_it_is_opened() -> None:
    data = encoded(canonical(), "WEBP", lossless=True)
    assert data[12:16] == b"VP8L"
    bits = struct.unpack("<I", data[21:25])[0]
    huge = struct.pack("<I", bits | 0x0FFFFFFF)
    assert refusal(lying(data, data[20:25], b"\x2f" + huge)) in {"too_many_pixels", "side_too_long"}


def test_every_mutant_gives_a_picture_or_a_typed_error() -> None:
    chance = random.Random(20_26)
    seeds = [stored_turned(canonical(), 6, format) for format in ("JPEG", "PNG", "WEBP", "TIFF")]
    seeds += [encoded(canonical(), "GIF"), encoded(canonical(), "BMP"), encoded(canonical().quantize(9), "PNG")]
    codes = set()
    for number in range(1400):
        mutant = bytearray(seeds[number % len(seeds)])
        for _ in range(chance.randint(1, 12)):
            mutant[chance.randrange(len(mutant))] = chance.choice((0, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            del mutant[chance.randrange(1, len(mutant)) :]
        try:
            picture = read(bytes(mutant), Limits(max_pixels=2_000_000))
            assert picture.image.mode == "RGB"
            assert not picture.image.info
            codes.add("decoded")
        except ImageError as error:
            codes.add(error.code)
    assert codes >= {"decoded", "corrupt_image", "truncated_image", "not_an_image"}


def test_these_modules_need_no_torch_and_nothing_of_ours() -> None:
    program = (
        "import sys, ml, ml.images, ml.facts; "
        "print([n for n in sys.modules if n.split('.')[0] in "
        "('torch', 'torchvision', 'pydantic', 'db', 'api', 'worker', 'flask', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
