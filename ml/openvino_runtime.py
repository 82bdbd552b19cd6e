"""OpenVINO as we run it: without its telemetry, on the CPU, from a file's bytes. Knows no torch, no label, no preset.

The optional extra `openvino`. Its converter would report to Google Analytics unless the user has opted out: nothing
leaves the user's machines, so the module that does it is kept from loading and OpenVINO falls back to its own stub.
"""

import io
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.errors import BackendError

Array = npt.NDArray[np.float32]
HINTS = {"fp32": "f32", "bf16": "bf16"}


def openvino() -> Any:
    """The module, its telemetry left out. Raises BackendError('backend_unavailable') where it is not installed."""
    if "openvino" not in sys.modules and find_spec("openvino") is None:
        raise BackendError(
            "backend_unavailable", "the extra `openvino` is not installed: pip install 'tagmill[openvino]'"
        )
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


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

        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Without it OpenVINO takes bf16 wherever the processor has it.
            "INFERENCE_PRECISION_HINT": HINTS[precision],
        }
        try:
            model = self._onnx.convert(self._onnx.load(io.BytesIO(data)))
            if shape is not None:
                model.reshape(list(shape))
            return self._core.compile_model(model, "CPU", options).create_infer_request()
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
