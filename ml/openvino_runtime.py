"""OpenVINO as we run it: without its telemetry, on the CPU, in a few batch sizes. Knows no torch, no label, no preset.

The optional extra `cpu`. Its converter would report to Google Analytics unless the user has opted out: nothing
leaves the user's machines, so the module that does it is kept from loading and OpenVINO falls back to its own stub.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.errors import BackendError

Array = npt.NDArray[np.float32]
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # of int8: for what was not quantised
# What a network is compiled for where nobody has measured. Of 1, 2, 4, 8 and 16 pictures at a time, one thread, 4 was
# the fastest or within 4 % of it for MobileNetV2 and V3 in fp32; 8 lost 12 % with the one and won 1 % with the other.
# In bf16 8 was 7 % ahead of 4 with V3, 4 % behind with V2. `ml.tuning` measures.
SIZES = (1, 4)


def openvino() -> Any:
    """The module, its telemetry left out. Raises BackendError('backend_unavailable') where it is not installed."""
    if "openvino" not in sys.modules and find_spec("openvino") is None:
        raise BackendError(
            "backend_unavailable", "the extra `cpu` (OpenVINO) is not installed: pip install 'tagmill[cpu]'"
        )
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class Compiled:
    """One network compiled for a few batch sizes: a batch goes through in parts of these, the largest first.

    A size costs the network's weights and one batch of activations (20–30 MB for a MobileNet), so there are few; a
    short batch (a single upload, a second look at a few) goes through the small ones instead of being filled up.
    Without size 1 the last part is filled up with zeros. One thread at a time.
    """

    def __init__(
        self,
        model: Any,
        side: Sequence[int],
        sizes: Sequence[int] = SIZES,
        *,
        precision: str = "fp32",
        threads: int = 1,
    ) -> None:
        """`side`: the shape of one picture. Raises BackendError('backend_unavailable')."""
        ov = openvino()
        from openvino.frontend import GeneralFailure, OpConversionFailure

        core = ov.Core()
        self.sizes = tuple(sorted(set(sizes), reverse=True))
        self._requests = {}
        try:
            for size in self.sizes:
                sized = model.clone()
                sized.reshape([size, *side])
                self._requests[size] = core.compile_model(
                    sized, "CPU", options(precision, threads)
                ).create_infer_request()
        except (RuntimeError, GeneralFailure, OpConversionFailure) as error:
            raise BackendError("backend_unavailable", f"OpenVINO cannot take this network: {_short(error)}") from None

    def infer(self, batch: npt.NDArray[Any]) -> Array:
        """The first output for `batch` (contiguous, N×…), in the order of its pictures."""
        found = []
        for at, count, size in parts(len(batch), self.sizes):
            part = batch[at : at + count]
            if count < size:
                part = np.concatenate([part, np.zeros((size - count, *part.shape[1:]), part.dtype)])
            found.append(infer(self._requests[size], part)[:count])
        return found[0] if len(found) == 1 else np.concatenate(found)


def parts(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(where a part begins, its pictures, the size that it goes through) of a batch; `sizes` from large to small."""
    at = 0
    for size in sizes:
        while count - at >= size:
            yield at, size, size
            at += size
    if at < count:
        yield at, count - at, sizes[-1]


def options(precision: str, threads: int) -> dict[str, Any]:
    """How every network is compiled."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned to a core, the thread would wait for it while another is free: crawlers and workers run beside it.
        "ENABLE_CPU_PINNING": False,
        # Without it OpenVINO takes bf16 wherever the processor has it.
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }


class OnnxOnOpenVino:
    """Reads and compiles ONNX networks. Made before a process locks itself in, it needs no file afterwards."""

    def __init__(self) -> None:
        self._ov = openvino()
        from openvino.frontend import FrontEndManager

        self._manager = FrontEndManager()  # must outlive its front end
        self._onnx = self._manager.load_by_framework("onnx")
        self._core = self._ov.Core()

    def compile(self, data: bytes, shape: tuple[int, ...] | None, *, precision: str = "fp32", threads: int = 1) -> Any:
        """An inference request for batches of exactly `shape` (None: whatever comes).

        Raises BackendError('backend_unavailable') where OpenVINO cannot take the network.
        """
        from openvino.frontend import GeneralFailure, OpConversionFailure

        model = self.read(data)
        try:
            if shape is not None:
                model.reshape(list(shape))
            return self._core.compile_model(model, "CPU", options(precision, threads)).create_infer_request()
        except (RuntimeError, GeneralFailure, OpConversionFailure) as error:
            raise BackendError("backend_unavailable", f"OpenVINO cannot take this network: {_short(error)}") from None

    def read(self, data: bytes) -> Any:
        """The network. Raises BackendError('backend_unavailable') where OpenVINO cannot take it."""
        from openvino.frontend import GeneralFailure, OpConversionFailure

        try:
            return self._onnx.convert(self._onnx.load(io.BytesIO(data)))
        except (RuntimeError, GeneralFailure, OpConversionFailure) as error:
            raise BackendError("backend_unavailable", f"OpenVINO cannot take this network: {_short(error)}") from None


def infer(request: Any, batch: Array) -> Array:
    """One forward pass: the first output, copied. Raises RuntimeError where the network fails."""
    found: Array = request.infer(batch, share_inputs=True)[0].copy()
    return found


def _short(error: Exception) -> str:
    """The last line that says something: OpenVINO's texts begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
