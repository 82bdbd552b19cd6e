"""Small files that want to be much: refused, or read no further than needed, within time and memory, in the sandbox.
Those that only declare a great size are in tests/worker/test_sandbox.py."""

import asyncio
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.ml.pictures import canonical, encoded, huge_pictures, png, png_chunk, refused_files
from worker.sandbox import Normalised, NormaliseFailure, Normaliser, SandboxLimits

# A bomb is ended by the time of CPU that it takes; on a busy machine, that may be long by the clock.
LIMITS = SandboxLimits(memory_bytes=2**28, wall_s=30.0, cpu_s=4.0)
GOOD = encoded(canonical(), "JPEG")
ROOT = Path(__file__).resolve().parents[2]


def many_frames() -> bytes:
    """A GIF of 100,000 frames."""
    one = encoded(Image.new("P", (2, 2), 1), "GIF")
    table = 3 << ((one[10] & 7) + 1) if one[10] & 0x80 else 0
    head, frame = one[: 13 + table], one[13 + table : -1]
    return head + frame * 100_000 + b";"


def many_scans() -> bytes:
    """A progressive JPEG whose first scan comes again and again: each costs a pass over all of the picture."""
    whole = encoded(canonical((2000, 2000)), "JPEG", progressive=True, quality=30)
    scans = [at for at in range(len(whole) - 1) if whole[at : at + 2] == b"\xff\xda"]
    last = whole[scans[-1] : -2]
    return whole[:-2] + last * (8_000_000 // len(last)) + b"\xff\xd9"


def circle() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    data = bytearray(encoded(canonical((8, 8)), "TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    entries = struct.unpack("<H", data[first : first + 2])[0]
    at = first + 2 + 12 * entries
    data[at : at + 4] = struct.pack("<I", first)
    return bytes(data)


def deflated(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * 2**20), 9)


def animated_png() -> bytes:
    """One picture that says it is the first of four thousand million."""
    control = png_chunk(b"acTL", struct.pack("!II", 0xFFFFFFFF, 0))
    return png(1, 1, extra=control, rows=b"\0abc")


BOMBS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    # name: the file, and the codes it may end with; "decoded" is one
    "GIF of 100,000 frames": (many_frames, {"decoded"}),
    "JPEG of thousands of scans": (many_scans, {"decode_timeout", "decoded", "corrupt_image"}),
    "TIFF in a circle": (circle, {"decoded", "corrupt_image"}),
    "PNG rows that go on": (lambda: _rows(300), {"decoded", "corrupt_image"}),
    "PNG with iTXt": (
        lambda: png(1, 1, extra=png_chunk(b"iTXt", b"a\0\1\0\0\0" + deflated(80)), rows=b"\0abc"),
        {"decompression_bomb", "decoded"},
    ),
    "PNG with a profile": (
        lambda: png(1, 1, extra=png_chunk(b"iCCP", b"a\0\0" + deflated(200)), rows=b"\0abc"),
        {"decompression_bomb", "decoded", "corrupt_image"},
    ),
    "animated PNG": (animated_png, {"decoded", "corrupt_image"}),
    "TIFF strips that go on": (lambda: _strips(200), {"decoded", "corrupt_image", "truncated_image"}),
}


def _rows(megabytes: int) -> bytes:
    """Pixels of one row are declared, and hundreds of megabytes of them come."""
    head = struct.pack("!IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", deflated(megabytes)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _strips(megabytes: int) -> bytes:
    """A TIFF of 8 × 8 whose one strip inflates to hundreds of megabytes."""
    strip = deflated(megabytes)
    tags = [(256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, 8), (279, len(strip))]
    directory = struct.pack("<H", len(tags))
    for tag, value in tags:
        directory += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


def code_of(result: Normalised | NormaliseFailure) -> str:
    return result.code if isinstance(result, NormaliseFailure) else "decoded"


def test_every_bomb_is_known_within_its_limits() -> None:
    async def main() -> dict[str, tuple[str, float]]:
        found = {}
        async with Normaliser(LIMITS, workers=1) as normaliser:
            for name, (make, _) in BOMBS.items():
                data = make()
                assert len(data) < 10_000_000, name
                began = time.monotonic()
                result = await normaliser.normalise(data)
                found[name] = (code_of(result), time.monotonic() - began)
                assert code_of(await normaliser.normalise(GOOD)) == "decoded", f"after {name}"
        return found

    for name, (code, seconds) in asyncio.run(main()).items():
        assert code in BOMBS[name][1], (name, code)
        assert seconds < LIMITS.wall_s + 15, name


# What starts Ghostscript, ImageMagick and the like: nothing of ours does, whatever a file is or is called.
PROGRAM = """
import sys
from pathlib import Path
from PIL import Image
from ml import images
folder, guarded = Path(sys.argv[1]), sys.argv[2] == "guarded"
for path in sorted(folder.iterdir()):
    try:
        if guarded:
            images.read(path.read_bytes())
        else:
            Image.open(path).load()
    except Exception:
        pass
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_no_program_is_ever_started_for_a_picture(tmp_path: Path, guarded: bool) -> None:
    """In a process without walls, with programs of these names in its path; and without our list of formats one is."""
    bin_, files, canary = tmp_path / "bin", tmp_path / "files", tmp_path / "canary"
    bin_.mkdir()
    files.mkdir()
    for name in ("gs", "gswin64c", "convert", "magick", "ffmpeg", "inkscape", "rsvg-convert", "pdftoppm", "unzip"):
        program = bin_ / name
        program.write_text(f"#!/bin/sh\necho $0 >> {canary}\nexit 1\n")
        program.chmod(0o755)
    for number, (name, (data, _)) in enumerate(refused_files().items()):
        (files / f"{number}-{name.replace(' ', '-')}.jpg").write_bytes(data)
    (files / "picture.eps.jpg").write_bytes(encoded(canonical(), "EPS"))
    command = [sys.executable, "-c", PROGRAM, str(files), "guarded" if guarded else "free"]
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, check=True, timeout=180)
    assert canary.exists() is not guarded


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_sandbox_starts_nothing_when_looked_at_from_outside(tmp_path: Path) -> None:
    """Every execve below the pool, seen by strace: its own start, and none for any file."""
    program = tmp_path / "pool.py"
    for number, data in enumerate([*(each for each, _ in refused_files().values()), *huge_pictures().values()]):
        (tmp_path / f"{number}.bin").write_bytes(data)
    program.write_text(
        "import asyncio, sys\nfrom pathlib import Path\nfrom worker.sandbox import Normaliser\n"
        "async def main():\n    async with Normaliser(workers=1) as n:\n"
        "        Path(sys.argv[1], 'begun').touch()\n"
        "        for f in Path(sys.argv[1]).glob('*.bin'): await n.normalise(f.read_bytes())\n"
        "asyncio.run(main())\n"
    )
    log = tmp_path / "strace.log"
    command = ["strace", "-f", "-e", "trace=execve", "-o", str(log), sys.executable, str(program), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=300)
    started = [line for line in log.read_text().splitlines() if "execve(" in line and "= 0" in line]
    assert len(started) == 2, started
