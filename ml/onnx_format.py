"""What an ONNX file is, found out by reading it: inputs, outputs, operators. Loads nothing native and runs nothing.

Refuses whatever reaches outside of the file (external data), brings its own code (operators of other domains,
functions) or nests graphs (If, Loop, Scan). Field numbers: onnx/onnx.proto3 of https://github.com/onnx/onnx.
"""

from dataclasses import dataclass
from typing import Final

from ml import protobuf
from ml.errors import ArtifactError
from ml.protobuf import Message, WireError

MAX_BYTES: Final = 1 << 30
DOMAINS: Final = ("", "ai.onnx")
FLOAT: Final = 1
_TYPES: Final = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a network. `shape`: None where a side is open; None for all where no rank is given."""

    name: str
    type: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sides = "?" if self.shape is None else "×".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name!r} ({_TYPES.get(self.type, f'type {self.type}')}, {sides})"


@dataclass(frozen=True, slots=True)
class Network:
    """One picture batch in, one batch of scores out. `last`: the operator that makes the output."""

    input: Port
    output: Port
    opset: int
    last: str
    operators: tuple[str, ...]


def read(data: bytes) -> Network:
    """Check a whole ONNX file. Raises ArtifactError.

    Codes: onnx_too_large, onnx_invalid (not ONNX, cut off), onnx_external_data, onnx_custom_op, onnx_subgraph,
    onnx_input, onnx_output (not one each, or not what a classifier of pictures has).
    """
    if len(data) > MAX_BYTES:
        raise ArtifactError("onnx_too_large", f"{len(data)} bytes; at most {MAX_BYTES} are taken")
    try:
        return _network(protobuf.read(data))
    except WireError as error:
        raise ArtifactError("onnx_invalid", f"not a whole ONNX file: {error}") from None


def _network(model: Message) -> Network:
    graph = model.message(7)
    if graph is None or not graph.has(1) or model.number(1) is None:
        raise ArtifactError("onnx_invalid", "not an ONNX file: it holds no graph")
    if model.has(20) or model.has(25):
        what = "training steps" if model.has(20) else "functions of its own"
        raise ArtifactError("onnx_custom_op", f"the file brings {what}: export the plain network for inference")
    opsets = {entry.text(1): entry.number(2) or 0 for entry in model.messages(8)}
    made: dict[str, str] = {}
    operators: set[str] = set()
    for node in graph.messages(1):
        operator = _operator(node)
        operators.add(operator)
        made |= dict.fromkeys(node.texts(2), operator)
    for tensor in graph.messages(5):
        _tensor(tensor)
    for sparse in graph.messages(15):
        _sparse(sparse)
    held = {tensor.text(8) for tensor in graph.messages(5)}
    # Until IR version 4 a weight had to be listed among the inputs as well.
    inputs = [port for port in map(_port, graph.messages(11)) if port.name not in held]
    outputs = [_port(entry) for entry in graph.messages(12)]
    _one_picture(inputs)
    _one_score(outputs)
    opset = max((opsets[domain] for domain in opsets if domain in DOMAINS), default=0)
    return Network(inputs[0], outputs[0], opset, made.get(outputs[0].name, ""), tuple(sorted(operators)))


def _operator(node: Message) -> str:
    """The name of a node's operator, its attributes checked."""
    domain, operator = node.text(7), node.text(4)
    if domain not in DOMAINS:
        raise ArtifactError("onnx_custom_op", f"the operator {domain}::{operator} is not one of ONNX's own")
    for attribute in node.messages(5):
        if attribute.has(6) or attribute.has(11):
            raise ArtifactError(
                "onnx_subgraph", f"{operator} holds a graph of its own: networks that branch are not run"
            )
        for tensor in [*attribute.messages(5), *attribute.messages(10)]:
            _tensor(tensor)
        for sparse in [*attribute.messages(22), *attribute.messages(23)]:
            _sparse(sparse)
    return operator


def _sparse(sparse: Message) -> None:
    for part in (sparse.message(1), sparse.message(2)):
        if part is not None:
            _tensor(part)


def _tensor(tensor: Message) -> None:
    """Refuse numbers that lie in another file: its path could be any on this machine."""
    if tensor.has(13) or tensor.number(14):
        name = tensor.text(8) or "a tensor"
        raise ArtifactError(
            "onnx_external_data",
            f"{name[:80]} lies in another file. Put everything into one: "
            "onnx.save(onnx.load(FILE), NEW, save_as_external_data=False)",
        )


def _port(entry: Message) -> Port:
    kind = entry.message(2)
    tensor = kind.message(1) if kind is not None else None
    if tensor is None:
        return Port(entry.text(1), 0, None)
    shape = tensor.message(2)
    sides = None if shape is None else tuple(_side(side) for side in shape.messages(1))
    return Port(entry.text(1), tensor.number(1) or 0, sides)


def _side(side: Message) -> int | None:
    length = side.number(1)
    return length if length is not None and length > 0 else None


def _one_picture(inputs: list[Port]) -> None:
    if len(inputs) != 1:
        names = ", ".join(port.name for port in inputs[:5]) or "none"
        raise ArtifactError("onnx_input", f"one input is needed, the pictures; there are {len(inputs)}: {names}")
    (port,) = inputs
    if port.type != FLOAT:
        raise ArtifactError("onnx_input", f"the input {port} must be float32")
    if port.shape is None or len(port.shape) != 4:
        raise ArtifactError("onnx_input", f"the input {port} must have four sides: pictures, channels, height, width")


def _one_score(outputs: list[Port]) -> None:
    if len(outputs) != 1:
        names = ", ".join(port.name for port in outputs[:5]) or "none"
        raise ArtifactError("onnx_output", f"one output is needed, the scores; there are {len(outputs)}: {names}")
    (port,) = outputs
    if port.type != FLOAT:
        raise ArtifactError("onnx_output", f"the output {port} must be float32")
    if port.shape is not None and len(port.shape) != 2:
        raise ArtifactError("onnx_output", f"the output {port} must have two sides: pictures and labels")
