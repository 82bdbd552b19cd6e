"""Tries a foreign ONNX network out in a locked-in process of its own; parses here only the answer's frame."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from worker.errors import WorkerError

if TYPE_CHECKING:
    from ml.openvino_runtime import Array

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
BOOT: Final = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from worker.{module} import main; main()"
)
LENGTH: Final = 8
MOST_HEADER: Final = 1 << 20
TIMEOUT_S: Final = 300.0
CPU_S: Final = 300
MEMORY: Final = 4 << 30
NOBODY: Final = 65_534


class ImportRefused(WorkerError):
    """A model that is not imported, and what to do instead. `code` is stable; docs/models.md has the list."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Trial:
    """What both runtimes gave for one batch, N×labels, how many pictures the network takes at once, and what stood
    around the process meanwhile.
    """

    reference: "Array"
    serving: "Array"
    batch: int | None
    walls: dict[str, bool]


class Words(Protocol):
    """A file that a child's last words go to."""

    def seek(self, offset: int, /) -> int: ...

    def read(self, size: int = ..., /) -> bytes: ...


def run(data: bytes, batches: "list[Array]", fixed: int | None) -> list[Trial]:
    """Run the ONNX file `data` on every batch, float32. `fixed`: how many pictures at once the file says it takes.

    Raises ImportRefused: the codes of `ml.onnx_run`, import_crashed, import_timeout.
    """
    import numpy as np

    request = {"onnx": len(data), "batches": [batch.shape for batch in batches], "fixed": fixed}
    walls = {
        "parent": os.getpid(), "memory_bytes": MEMORY + 8 * len(data), "cpu_s": CPU_S, "open_files": 16, "user": NOBODY,
        "threads": True,
    }  # fmt: skip
    with tempfile.TemporaryFile() as stdin:
        text = json.dumps(request).encode()
        stdin.write(len(text).to_bytes(LENGTH, "little") + text + data)
        for batch in batches:
            stdin.write(batch.tobytes())
        stdin.seek(0)
        largest = 64 * sum(len(batch) for batch in batches) * 100_000
        answer = ask("model_child", [json.dumps(walls)], {"ORT_DISABLE_TELEMETRY": "1"}, largest, stdin=stdin)
    header, body = _framed(answer)
    if "code" in header:
        raise ImportRefused(str(header["code"]), str(header["detail"])[:400])
    arrays, at = [], 0
    try:
        for shape in header["shapes"]:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(body, np.float32, count, at).reshape(shape))
            at += 4 * count
        pairs = zip(arrays[::2], arrays[1::2], header["batches"], strict=True)
        return [Trial(reference, serving, batch, header["walls"]) for reference, serving, batch in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise ImportRefused("import_crashed", "the process that tried the network out gave no sane answer") from error


def ask(module: str, arguments: list[str], environment: dict[str, str], largest: int, *, stdin: Any = None) -> bytes:
    """Run `worker.<module>` in a process with an empty environment; what it wrote on stdout, `largest` bytes at most.

    Raises ImportRefused: import_crashed, import_timeout.
    """
    command = [sys.executable, "-I", "-c", BOOT.format(module=module), _ROOT, *arguments]
    inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ}
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            env=inherited | environment,
            cwd="/",
            start_new_session=True,
        ) as process,
    ):

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(TIMEOUT_S, end)
        timer.start()
        try:
            assert process.stdout is not None
            answer = process.stdout.read(largest + 1)
            if len(answer) > largest:
                process.kill()
            status = process.wait()
        finally:
            timer.cancel()
            process.kill()
        if late.is_set():
            raise ImportRefused("import_timeout", f"the model did not load and run within {TIMEOUT_S:.0f} s")
        if status or len(answer) > largest:
            raise ImportRefused("import_crashed", f"the model killed the process that tried it: {_last(words, status)}")
    return answer


def _framed(answer: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(answer[:LENGTH], "little")
    try:
        if size > MOST_HEADER:
            raise ValueError(size)
        header = dict(json.loads(answer[LENGTH : LENGTH + size]))
    except (ValueError, TypeError) as error:
        raise ImportRefused("import_crashed", "the process that tried the network out gave no sane answer") from error
    return header, answer[LENGTH + size :]


def _last(words: Words, status: int) -> str:
    words.seek(0)
    said = words.read(1 << 20).decode(errors="replace").strip().rpartition("\n")[2]
    return "".join(letter for letter in said if letter.isprintable())[:300] or f"exit status {status}"
