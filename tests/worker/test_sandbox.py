"""The normaliser's pool: what hostile files come to, what its processes may not do, and what comes after."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from db.codes import CODES
from ml import images
from ml.facts import facts
from tests.ml.pictures import canonical, encoded, gap, huge_pictures, png, png_chunk, refused_files, stored_turned
from worker.sandbox import Normalised, NormaliseFailure, Normaliser, SandboxError, SandboxLimits
from worker.sandbox_process import SandboxProcess

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = SandboxLimits()
GOOD = encoded(canonical((400, 300)), "JPEG")

# Looked at by eye: (width, height, format) of the upright original, or the code.
GOLDEN: dict[str, tuple[int, int, str] | str] = {
    "hopper_orientation_2.jpg": (128, 128, "JPEG"),
    "g4_orientation_6.tif": (590, 88, "TIFF"),
    "g4_orientation_8.tif": (590, 88, "TIFF"),
    "avif__rot3mir1.avif": (640, 427, "AVIF"),
    "xmp_tags_orientation_exiftool.png": (10, 10, "PNG"),
    "tiff_tiled_cmyk_jpeg.tif": (100, 100, "TIFF"),
    "tiff_strip_cmyk_16l_jpeg.tif": (100, 100, "TIFF"),
    "16_bit_binary_pgm.tiff": (20, 100, "TIFF"),
    "tiff_16bit_RGBa.tiff": (100, 40, "TIFF"),
    "10ct_32bit_128.tiff": (128, 128, "TIFF"),
    "hopper.Lab.tif": (128, 128, "TIFF"),
    "bmp__g__pal8topdown.bmp": (127, 64, "BMP"),
    "bmp__q__rgb32fakealpha.bmp": (127, 64, "BMP"),
    "sugarshack_bad_mpo_header.jpg": (640, 480, "JPEG"),
    "sugarshack_no_data.mpo": (640, 480, "JPEG"),
    "iss634.gif": (245, 245, "GIF"),
    "exif_typeerror.jpg": (800, 531, "JPEG"),
    "multipage_multiple_frame_loop.tiff": (10, 10, "TIFF"),
    "decompression_bomb_extents.gif": (100, 100, "GIF"),
    "truncated_jpeg.jpg": "truncated_image",
    "truncated_image.png": "truncated_image",
    "truncated_end_chunk.png": "truncated_image",
    "broken.png": "corrupt_image",
    "broken_data_stream.png": "corrupt_image",
    "unknown_compression_method.png": "corrupt_image",
    "bmp__b__badheadersize.bmp": "corrupt_image",
    "bmp__b__badwidth.bmp": "too_many_pixels",
    "zero_width.gif": "corrupt_image",
    "eps__1.eps": "unsupported_format",
    "negative_top_left_layer.psd": "unsupported_format",
    "rgb_trns_ycbc.jp2": "unsupported_format",
    "hopper.ppm": "unsupported_format",
    "tga__common__200x32_rgba_tl_raw.tga": "not_an_image",
    "LICENSE": "not_an_image",
}
# Files that show the same picture, and how far they may be apart (mean of grey levels; some are stored lossily).
TWINS = [
    *((f"hopper_orientation_{n}", "hopper.png", 6.0) for n in ("2.jpg", "3.webp", "4.jpg", "5.webp", "6.jpg")),
    *((f"hopper_orientation_{n}", "hopper.png", 6.0) for n in ("6.webp", "7.webp", "8.webp")),
    *((f"g4_orientation_{n}.tif", "g4_orientation_2.tif", 1.0) for n in (4, 6, 7, 8)),
    ("tiff_strip_cmyk_16l_jpeg.tif", "tiff_tiled_cmyk_jpeg.tif", 1.0),
    ("tiff_16bit_RGBa.tiff", "tiff_16bit_RGBa_target.png", 1.0),
    ("tiff_strip_planar_16bit_RGB.tiff", "tiff_16bit_RGB_target.png", 1.0),
    ("hopper.Lab.tif", "hopper.png", 4.0),
    ("hopper_rle8.bmp", "hopper.png", 6.0),
    ("hopper_lzw.tif", "hopper.tif", 0.5),
    ("bmp__g__pal8rle.bmp", "bmp__g__pal8topdown.bmp", 0.5),
    ("bmp__g__pal4.bmp", "bmp__html__pal4.png", 0.5),
]


def in_pool(use: Callable[[Normaliser], Awaitable[Any]], limits: SandboxLimits = DEFAULT, **options: Any) -> Any:
    async def main() -> Any:
        async with Normaliser(limits, **{"workers": 1, **options}) as normaliser:
            return await use(normaliser)

    return asyncio.run(main())


def normalised(data: bytes, **options: Any) -> Normalised | NormaliseFailure:
    return in_pool(lambda normaliser: normaliser.normalise(data), **options)


def picture_of(result: Normalised | NormaliseFailure) -> Image.Image:
    assert isinstance(result, Normalised), result
    return images.decode(result.work)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAGMILL_TEST_BUILD", "1")
    return Path(__file__).with_name("sandbox_hooks.py")


@pytest.fixture(scope="module")
def odd(shared: Path) -> Path:
    folder = shared / "data" / "odd-images"
    if not folder.is_dir():
        pytest.skip("../shared/data/odd-images is not here")
    return folder


@pytest.fixture(scope="module")
def odd_results(odd: Path) -> dict[str, Normalised | NormaliseFailure]:
    """Every odd file through one pool of two processes."""

    async def all_of(normaliser: Normaliser) -> dict[str, Normalised | NormaliseFailure]:
        files = sorted(odd.iterdir())
        results = await asyncio.gather(*(normaliser.normalise(file.read_bytes()) for file in files))
        return {file.name: result for file, result in zip(files, results, strict=True)}

    return in_pool(all_of, workers=2)


# ── one picture ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_comes_back_as_a_working_copy_and_facts() -> None:
    result = normalised(GOOD)
    assert isinstance(result, Normalised)
    local = images.read(GOOD, images.Limits(draft_short_side=384))
    assert result.work == images.working_copy(local)
    assert (result.width, result.height, result.format) == (400, 300, "JPEG")
    found = facts(local.image)
    assert (result.pdq, result.pdq_quality) == (found["pdq"], found["pdq_quality"])
    assert (result.colours, result.sharpness) == (found["colours"], found["sharpness"])
    assert result.seconds > 0


def test_facts_and_the_working_copy_can_be_chosen() -> None:
    result = normalised(GOOD, facts=["sharpness"], short_side=100, quality=50)
    assert isinstance(result, Normalised)
    assert (result.pdq, result.pdq_quality, result.colours) == (None, None, None)
    assert result.sharpness is not None
    assert images.decode(result.work).size == (133, 100)
    with pytest.raises(ValueError, match="taste"):
        Normaliser(facts=["taste"])


def test_each_picture_can_have_other_facts() -> None:
    choices: list[list[str] | None] = [[], ["pdq"], ["colours", "sharpness"], None]

    async def use(normaliser: Normaliser) -> list[Any]:
        return [await normaliser.normalise(GOOD, facts=wanted) for wanted in choices]

    results = in_pool(use, facts=["sharpness"])
    found = [(one.pdq is not None, one.colours is not None, one.sharpness is not None) for one in results]
    assert found == [(False, False, False), (True, False, False), (False, True, True), (False, False, True)]


@pytest.mark.parametrize("name", refused_files())
def test_what_only_calls_itself_a_picture_is_refused(name: str) -> None:
    data, code = refused_files()[name]
    result = normalised(data)
    assert isinstance(result, NormaliseFailure)
    assert result.code == code


def test_bombs_are_refused_by_their_size_not_by_the_memory_they_took() -> None:
    """Also where there is hardly any memory; the process lives on."""
    bombs = huge_pictures()
    bombs["frames"] = encoded(
        Image.new("P", (2, 2)), "GIF", save_all=True, append_images=[Image.new("P", (2, 2), n % 2) for n in range(3000)]
    )
    import zlib

    bombs["zTXt"] = png(1, 1, extra=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 * 2**20))), rows=b"\0abc")

    async def use(normaliser: Normaliser) -> tuple[list[int], dict[str, Any], list[int]]:
        before = normaliser.pids
        results = {name: await normaliser.normalise(data) for name, data in bombs.items()}
        return before, results, normaliser.pids

    before, results, after = in_pool(use, SandboxLimits(memory_bytes=2**28))
    assert before == after
    assert isinstance(results.pop("frames"), Normalised)
    assert results.pop("zTXt").code == "decompression_bomb"
    assert {result.code for result in results.values()} <= {"too_many_pixels", "side_too_long"}


def test_more_bytes_than_allowed_are_not_even_sent() -> None:
    result = normalised(GOOD, limits=SandboxLimits(max_bytes=100))
    assert isinstance(result, NormaliseFailure)
    assert result.code == "too_large"


def test_nothing_of_a_polyglot_reaches_the_working_copy() -> None:
    payload = b"<script>alert(document.domain)</script>"
    comment = encoded(canonical(), "GIF", comment=payload)
    for data in (
        GOOD + payload,
        encoded(canonical(), "JPEG", comment=payload),
        encoded(canonical(), "PNG") + b"PK\x03\x04" + payload,
        png(2, 1, extra=png_chunk(b"tEXt", b"k\0" + payload), rows=b"\0abcdef"),
        comment,
        encoded(canonical(), "BMP") + payload,
    ):
        assert payload in data
        result = normalised(data)
        assert isinstance(result, Normalised)
        assert b"script" not in result.work
        assert b"PK\x03\x04" not in result.work


def test_where_a_photo_was_taken_does_not_reach_the_working_copy() -> None:
    exif = Image.Exif()
    exif[0x010F] = "SerialNumber4711"
    exif.get_ifd(0x8825)[1] = "N48deg51"
    for format in ("JPEG", "PNG", "WEBP", "AVIF"):
        data = encoded(canonical(), format, exif=exif)
        assert b"N48deg51" in data
        assert b"4711" in data
        result = normalised(data)
        assert isinstance(result, Normalised)
        for secret in (b"N48deg51", b"4711", b"Exif"):
            assert secret not in result.work


def test_every_way_to_store_a_picture_gives_the_same_working_copy() -> None:
    upright = canonical()
    deep = np.asarray(upright, dtype=int) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    stored = [stored_turned(upright, n, "JPEG", quality=95) for n in range(1, 9)]
    stored += [encoded(upright.convert("CMYK"), "TIFF"), png(96, 64, bits=16, rows=rows)]
    stored += [encoded(upright.quantize(256), "PNG"), encoded(upright.convert("RGBA"), "PNG")]

    async def use(normaliser: Normaliser) -> list[Normalised | NormaliseFailure]:
        return [await normaliser.normalise(data) for data in stored]

    for result in in_pool(use):
        assert isinstance(result, Normalised)
        assert (result.width, result.height) == upright.size
        assert gap(picture_of(result), upright) < 6


# ── the odd files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_odd_file_is_a_picture_or_a_known_failure(
    odd_results: dict[str, Normalised | NormaliseFailure],
) -> None:
    assert len(odd_results) > 200
    for name, result in odd_results.items():
        if isinstance(result, Normalised):
            assert images.decode(result.work).mode == "RGB", name
        else:
            assert result.code in CODES, name
            assert result.code not in {"decoder_crashed", "decode_timeout", "decode_memory"}, name


def test_the_walls_change_no_result(odd: Path, odd_results: dict[str, Normalised | NormaliseFailure]) -> None:
    """What a locked-in process cannot decode, for a lazy import or a file it may not read, would differ here."""
    limits = images.Limits(draft_short_side=384)
    for name, result in odd_results.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                here: Any = images.working_copy(images.read((odd / name).read_bytes(), limits))
            except images.ImageError as error:
                here = NormaliseFailure(error.code, error.detail)
        assert (result.work if isinstance(result, Normalised) else result) == here, name


@pytest.mark.parametrize("name", GOLDEN)
def test_hand_checked_outcomes(name: str, odd_results: dict[str, Normalised | NormaliseFailure]) -> None:
    result = odd_results[name]
    outcome = result.code if isinstance(result, NormaliseFailure) else (result.width, result.height, result.format)
    assert outcome == GOLDEN[name]


@pytest.mark.parametrize(("name", "twin", "most"), TWINS)
def test_twins_show_the_same_picture(
    name: str, twin: str, most: float, odd_results: dict[str, Normalised | NormaliseFailure]
) -> None:
    assert gap(picture_of(odd_results[name]), picture_of(odd_results[twin])) < most


# ── the pool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_at_once_each_get_their_own_answer() -> None:
    files = [encoded(Image.new("RGB", (10 + n, 20)), "PNG") for n in range(60)]

    async def use(normaliser: Normaliser) -> tuple[list[Any], list[int]]:
        results = await asyncio.gather(*(normaliser.normalise(data) for data in files))
        return results, normaliser.pids

    results, pids = in_pool(use, workers=3)
    assert [result.width for result in results] == [10 + n for n in range(60)]
    assert len(pids) == 3


def test_processes_are_replaced_after_their_share(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> list[int]:
        return [await normaliser.call_hook("pid") for _ in range(9)]

    pids = in_pool(use, SandboxLimits(recycle_after=3), hooks=hooks)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_a_killed_process_costs_one_picture(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        hanging = asyncio.create_task(normaliser.call_hook("hang"))
        await asyncio.sleep(0.2)
        os.kill(normaliser.pids[0], signal.SIGKILL)
        return await hanging, await normaliser.normalise(GOOD)

    died, after = in_pool(use, hooks=hooks)
    assert died == NormaliseFailure("decoder_crashed", "the process died of SIGKILL")
    assert isinstance(after, Normalised)


def test_a_process_that_dies_between_two_pictures_is_noticed() -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        os.kill(normaliser.pids[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        return await normaliser.normalise(GOOD), await normaliser.normalise(GOOD)

    for result in in_pool(use):
        assert isinstance(result, Normalised)


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        ("segfault", "decoder_crashed"),
        ("abort", "decoder_crashed"),
        ("leave", "decoder_crashed"),
        ("babble", "decoder_crashed"),
        ("lie", "decoder_crashed"),
        ("nest", "decoder_crashed"),
        ("hang", "decode_timeout"),
        ("spin", "decode_timeout"),
        ("eat_memory", "decode_memory"),
    ],
)
def test_whatever_a_process_does_the_next_picture_is_fine(hook: str, code: str, hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any, Any]:
        before = normaliser.pids
        failed = await normaliser.call_hook(hook)
        after = await normaliser.normalise(GOOD)
        assert not set(before) & set(normaliser.pids)
        return failed, after, normaliser.pids

    failed, after, pids = in_pool(use, SandboxLimits(wall_s=2.0 if hook == "hang" else 30.0), hooks=hooks)
    assert isinstance(failed, NormaliseFailure)
    assert failed.code == code
    assert isinstance(after, Normalised)
    assert len(pids) == 1


def test_a_process_that_lies_about_a_picture_is_replaced(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any, Any]:
        taken_over = await normaliser.call_hook("usurp")
        before = normaliser.pids
        lie, after = await normaliser.normalise(GOOD), await normaliser.normalise(GOOD)
        assert not set(before) & set(normaliser.pids)
        return taken_over, lie, after

    taken_over, lie, after = in_pool(use, hooks=hooks)
    assert taken_over == "ours"
    assert isinstance(lie, NormaliseFailure)
    assert lie.code == "decoder_crashed"
    assert "makes no sense" in lie.detail, "refused for what it said, not because it failed to say it"
    assert isinstance(after, Normalised)


def test_a_picture_is_asked_once_more_when_its_process_was_killed_from_outside(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> Any:
        pid = await normaliser.call_hook("pid")
        os.kill(pid, signal.SIGSTOP)  # so that it dies with the picture in hand
        asked = asyncio.create_task(normaliser.normalise(GOOD))
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        return await asked

    assert isinstance(in_pool(use, hooks=hooks), Normalised)


@pytest.mark.parametrize(("hook", "detail"), [("leave", "ended with 3"), ("segfault", "SIGSEGV")])
def test_a_picture_that_kills_two_processes_is_at_fault(hook: str, detail: str, hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        await normaliser.call_hook("pid")
        started = SandboxProcess.start
        starts: list[int] = []

        async def counted(config: str) -> SandboxProcess:
            starts.append(1)
            return await started(config)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SandboxProcess, "start", counted)
            return await normaliser.call_hook(hook), len(starts)

    failed, starts = in_pool(use, hooks=hooks)
    assert isinstance(failed, NormaliseFailure)
    assert failed.code == "decoder_crashed"
    assert detail in failed.detail
    assert starts == 1


def test_a_picture_that_needs_more_memory_than_there_is() -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        rows = bytes((4000 * 4 + 1) * 4000)
        return await normaliser.normalise(png(4000, 4000, colour=6, rows=rows)), await normaliser.normalise(GOOD)

    failed, after = in_pool(use, SandboxLimits(memory_bytes=230 * 2**20))
    assert isinstance(failed, NormaliseFailure)
    assert failed.code == "decode_memory"
    assert isinstance(after, Normalised)


def test_what_a_process_says_unasked_is_no_answer_to_the_next_picture(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        await normaliser.call_hook("answer_twice")
        async with asyncio.timeout(30):
            while normaliser.pids:
                await asyncio.sleep(0.02)
        return await normaliser.normalise(GOOD), await normaliser.normalise(GOOD)

    for result in in_pool(use, hooks=hooks):
        assert isinstance(result, Normalised)
        assert result.width == 400


def test_a_picture_and_a_working_copy_larger_than_the_pipes_come_through() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1600, 1600, 3), dtype=np.uint8))
    data = encoded(noise, "PNG")
    assert len(data) > 2**22

    async def use(normaliser: Normaliser) -> list[Any]:
        return await asyncio.gather(*(normaliser.normalise(data) for _ in range(3)))

    for result in in_pool(use, short_side=1600, quality=100):
        assert isinstance(result, Normalised)
        assert len(result.work) > 2**20
        assert picture_of(result).size == (1600, 1600)


def test_a_cancelled_wait_frees_its_process(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> Any:
        hanging = asyncio.create_task(normaliser.call_hook("hang"))
        await asyncio.sleep(0.1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        return await normaliser.normalise(GOOD)

    assert isinstance(in_pool(use, hooks=hooks), Normalised)


def test_closing_ends_every_process_and_blames_no_picture(hooks: Path) -> None:
    async def main() -> tuple[list[int], Any]:
        async with Normaliser(workers=2, hooks=hooks) as normaliser:
            waiting = [asyncio.create_task(normaliser.call_hook("hang")) for _ in range(2)]
            async with asyncio.timeout(60):
                while len(pids := normaliser.pids) < 2:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.4)  # both hang
        results = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(SandboxError):
            await normaliser.normalise(GOOD)
        return pids, results

    pids, results = asyncio.run(main())
    assert len(pids) == 2
    assert all(isinstance(result, SandboxError) for result in results)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_no_process_survives_its_parent(hooks: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from worker.sandbox import Normaliser
async def main():
    async with Normaliser(workers=1, hooks=Path(sys.argv[1])) as normaliser:
        hanging = asyncio.create_task(normaliser.call_hook("hang"))
        while not normaliser.pids:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        print(*normaliser.pids, flush=True)
        await hanging
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program, str(hooks)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while _running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _running(pid)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_sandbox_that_cannot_start_says_why() -> None:
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        with pytest.raises(SandboxError, match="pillow_heif"):
            normalised(GOOD, limits=SandboxLimits(heif=True))
    else:
        assert isinstance(normalised(GOOD, limits=SandboxLimits(heif=True)), Normalised)


# ── the walls ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_stands_is_reported_and_stands_here() -> None:
    async def use(normaliser: Normaliser) -> dict[str, bool]:
        return normaliser.capabilities

    walls = in_pool(use)
    assert walls["own_user"] == (os.geteuid() == 0)
    for wall in ("memory_limit", "no_new_privileges", "dies_with_parent", "no_network", "no_files"):
        assert walls[wall], wall


@pytest.mark.parametrize(
    "hook",
    [
        *("datagram", "unix_socket", "write_file", "read_file", "list_folder", "remove_file"),
        *("fork", "execute", "spawn", "kill_parent", "trace_parent", "raise_memory_limit"),
    ],
)
def test_inside_everything_but_decoding_is_denied(hook: str, hooks: Path) -> None:
    result = in_pool(lambda normaliser: normaliser.call_hook(hook), hooks=hooks)
    assert isinstance(result, str), result
    assert result.startswith("denied"), result
    assert hooks.exists()


def test_inside_no_connection_reaches_even_this_machine(
    hooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        copy = tmp_path / "hooks.py"
        text = hooks.read_text()
        assert "PORT = 9 " in text
        copy.write_text(text.replace("PORT = 9 ", f"PORT = {server.getsockname()[1]} "))
        socket.create_connection(server.getsockname()).close()  # it listens
        server.accept()[0].close()
        server.settimeout(0.5)
        result = in_pool(lambda normaliser: normaliser.call_hook("connect"), hooks=copy)
        assert result.startswith("denied"), result
        with pytest.raises(TimeoutError):
            server.accept()


def test_inside_no_secret_of_the_environment_is_seen(hooks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGMILL_DATABASE_URL", "postgresql://tagmill:hunter2@localhost/tagmill")

    async def use(normaliser: Normaliser) -> tuple[list[str], list[str]]:
        return await normaliser.call_hook("environment"), await normaliser.call_hook("arguments")

    environment, arguments = in_pool(use, hooks=hooks)
    assert any(line.startswith("OPENBLAS_NUM_THREADS=") for line in environment)
    assert "hunter2" not in " ".join([*environment, *arguments])
    assert not [line for line in environment if line.startswith(("TAGMILL", "HOME", "PATH"))]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_root_it_becomes_somebody_else(hooks: Path) -> None:
    assert in_pool(lambda normaliser: normaliser.call_hook("uid"), hooks=hooks) == 65_534


def test_what_a_library_prints_does_not_disturb_the_answers(hooks: Path) -> None:
    async def use(normaliser: Normaliser) -> tuple[Any, Any]:
        return await normaliser.call_hook("print_something"), await normaliser.normalise(GOOD)

    printed, after = in_pool(use, hooks=hooks)
    assert printed == "printed"
    assert isinstance(after, Normalised)


def test_hooks_exist_only_in_test_builds(hooks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = in_pool(lambda normaliser: normaliser.call_hook("pid"))
    assert failed.code == "not_an_image"  # taken for a picture
    monkeypatch.delenv("TAGMILL_TEST_BUILD")
    with pytest.raises(ValueError, match="test builds"):
        Normaliser(hooks=hooks)


def test_where_threads_are_allowed_processes_are_not() -> None:
    """HEIC's decoder needs a thread; the filter tells one from a fork."""
    program = """
import ctypes, os, threading
from worker import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
confined = seccomp.confine(threads=True)
done = []
thread = threading.Thread(target=done.append, args=("thread",))
thread.start()
thread.join()
try:
    os.fork()
except OSError as error:
    done.append(error.strerror)
os.write(1, repr((confined, done)).encode())
os._exit(0)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    if ran.stdout.startswith("(False"):
        pytest.skip("no seccomp on this machine")
    assert ran.stdout == "(True, ['thread', 'Operation not permitted'])"
