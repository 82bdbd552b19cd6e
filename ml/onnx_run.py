"""Runs an ONNX network that nobody has run here before, by two runtimes, on the same numbers. Knows no torch, no label.

Meant for a process that has locked itself in: everything is imported and warmed up by the constructor, and `run` opens
nothing. ONNX Runtime reports to its maker by default: whoever starts the process sets ORT_DISABLE_TELEMETRY=1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ml.errors import ArtifactError, BackendError
from ml.openvino_runtime import Array, OnnxOnOpenVino, infer

# y = Identity(x), one float32: {ir_version 8, opset 13, graph {node, name, input, output}}.
_WARM_UP = bytes.fromhex(
    "08084202100d3a370a100a017812017922084964656e746974791201675a0f0"
    "a0178120a0a08080112040a020801620f0a0179120a0a08080112040a020801"
)


@dataclass(frozen=True, slots=True)
class Ran:
    """The outputs of both runtimes, N×labels; `batch`: pictures that the network takes at once, None: any number."""

    reference: Array
    serving: Array
    batch: int | None


class Runtimes:
    """ONNX Runtime, which is the reference, and OpenVINO, which serves."""

    def __init__(self) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        self._ort = onnxruntime
        self._openvino = OnnxOnOpenVino()
        self._warm_up()

    def run(self, data: bytes, batch: Array, fixed: int | None) -> Ran:
        """Both runtimes' outputs for `batch`; `fixed`: how many pictures at once the file says it takes.

        Raises ArtifactError: onnx_not_runnable, onnx_output.
        """
        try:
            session = self._session(data)
            name = session.get_inputs()[0].name

            def reference(part: Array) -> Array:
                found: Array = session.run(None, {name: part})[0]
                return found

            at_once = fixed or self._at_once(reference, batch)
            expected = _in_parts(reference, batch, at_once or len(batch))
            shape = (at_once or len(batch), *batch.shape[1:])
            request = self._openvino.compile(data, shape)
            serving = _in_parts(lambda part: infer(request, part), batch, shape[0])
        except (ArtifactError, MemoryError):
            raise
        except BackendError as error:
            raise ArtifactError("onnx_not_runnable", error.detail) from None
        except Exception as error:  # noqa: BLE001 — onnxruntime's own classes share no base
            raise ArtifactError("onnx_not_runnable", said(error)) from None
        return Ran(expected, serving, at_once)

    def _at_once(self, reference: Any, batch: Array) -> int | None:
        """None where a batch gives what its pictures give one by one; 1 where the graph was made for one picture."""
        single = _in_parts(reference, batch, 1)
        try:
            together = reference(batch)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 — a graph made for one picture fails in many ways
            return 1
        same = together.shape == single.shape and np.allclose(together, single, rtol=1e-3, atol=1e-5)
        return None if same else 1

    def _session(self, data: bytes) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return self._ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def _warm_up(self) -> None:
        sample = np.ones(1, np.float32)
        self._session(_WARM_UP).run(None, {"x": sample})
        infer(self._openvino.compile(_WARM_UP, None), sample)


def _in_parts(forward: Any, batch: Array, size: int) -> Array:
    """`forward` on `size` pictures at a time, the last part filled up. Raises ArtifactError('onnx_output')."""
    found = []
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        full = np.zeros((size, *batch.shape[1:]), np.float32)
        full[: len(part)] = part
        outputs = np.asarray(forward(full))
        if outputs.ndim != 2 or len(outputs) != size:
            what = f"{size} pictures give {'×'.join(map(str, outputs.shape))} numbers, not pictures × labels"
            raise ArtifactError("onnx_output", what)
        found.append(outputs[: len(part)].astype(np.float32))
    return np.concatenate(found)


def said(error: Exception) -> str:
    """One printable line of what a library says."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter for letter in text if letter.isprintable())[:300]
