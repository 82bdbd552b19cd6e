"""The normaliser's process: hostile bytes from its parent in, a working copy and facts out. It opens no file.

    hello → (picture → decode under limits → working copy → facts → answer)*

Started by worker.sandbox_process with its configuration as its only argument.
"""

import json
import os
import runpy
import sys
import time
import warnings
from collections.abc import Callable, Collection
from functools import partial
from io import BytesIO, FileIO
from typing import Any, Final

from PIL import Image

from ml import facts as picture_facts
from ml import images
from worker import collector
from worker.confinement import ANSWERS, cpu_limit, lock_in
from worker.sandbox_frames import ANSWER, DONE, FAILED, HELLO, HOOK, REQUEST, facts_of

_REQUESTS: Final = FileIO(0, closefd=False)

Answer = tuple[bytes, dict[str, Any], bytes]
Hooks = dict[str, Callable[[], Any]]


class Normalising:
    """Turns one picture's bytes into an answer's header and body, by one configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.limits = images.Limits(**config["limits"])
        self.short_side: int = config["short_side"]
        self.quality: int = config["quality"]
        self.cpu_s: float = config["cpu_s"]

    def __call__(self, data: bytes, wanted: Collection[str] = picture_facts.ALL_FACTS) -> Answer:
        started = time.perf_counter()
        with cpu_limit(self.cpu_s):
            picture = images.read(data, self.limits)
            work = images.working_copy(picture, self.short_side, self.quality)
            found = picture_facts.facts(picture.image, wanted)
        header = {
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            **found,
            "seconds": round(time.perf_counter() - started, 6),
        }
        if "pdq" in found:
            header["pdq"] = found["pdq"].hex()
        return DONE, header, work


def _guarded(work: Callable[[], Answer]) -> Answer:
    """The top of the stage: whatever `work` raises becomes an answer. After the last two the parent replaces us."""
    try:
        return work()
    except images.ImageError as error:
        return FAILED, {"code": error.code, "detail": error.detail}, b""
    except MemoryError:
        return FAILED, {"code": "decode_memory", "detail": "out of memory"}, b""
    except Exception as error:  # noqa: BLE001
        return FAILED, {"code": "decoder_crashed", "detail": f"{type(error).__name__}: {error}"[:200]}, b""


def _hooked(hook: Callable[[], Any]) -> Answer:
    return DONE, {"result": hook()}, b""


def main() -> None:
    """Import and warm up, lock in, then serve until the parent closes the pipe."""
    config = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")
    if config["limits"]["heif"]:
        images.enable_heif()
    hooks: Hooks = runpy.run_path(config["hooks"])["HOOKS"] if config["hooks"] else {}
    normalise = Normalising(config)
    _warm_up(Normalising({**config, "limits": {}}))
    collector.settle()
    walls = lock_in(**config["walls"])
    send(HELLO, {"walls": walls.as_dict()}, b"")
    while (header := receive(REQUEST.size)) is not None:
        kind, wanted, length = REQUEST.unpack(header)
        payload = receive(length)
        if payload is None:
            break
        if kind == HOOK and hooks:
            send(*_guarded(partial(_hooked, hooks[payload.decode()])))
        else:
            send(*_guarded(partial(normalise, payload, facts_of(wanted))))
    os._exit(0)


def _warm_up(normalise: Normalising) -> None:
    """Decode one picture of each format, so that nothing is left to be imported or looked up on disk."""
    sample = Image.linear_gradient("L").resize((16, 16))
    for name in images.FORMATS:
        out = BytesIO()
        sample.save(out, name)
        normalise(out.getvalue())
    _guarded(lambda: normalise(b"\xff\xd8\xff broken"))


def receive(size: int) -> bytes | None:
    """Exactly `size` bytes from the parent; None when it has closed the pipe."""
    buffer = bytearray(size)
    rest = memoryview(buffer)
    while rest:
        count = _REQUESTS.readinto(rest)
        if not count:
            return None
        rest = rest[count:]
    return bytes(buffer)


def send(kind: bytes, header: dict[str, Any], body: bytes) -> None:
    """One answer to the parent."""
    text = json.dumps(header).encode()
    rest = memoryview(ANSWER.pack(kind, len(text), len(body)) + text + body)
    while rest:
        rest = rest[os.write(ANSWERS, rest) :]


if __name__ == "__main__":
    main()
