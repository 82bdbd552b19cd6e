"""Foreign ONNX files: what a classifier of pictures has is read, everything that reaches further is refused."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from ml import onnx_format
from ml.errors import ArtifactError
from tests.ml import onnx_files


def refused(model: Any) -> str:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ArtifactError) as caught:
        onnx_format.read(data)
    return caught.value.code


@pytest.mark.parametrize(("ends", "last"), [("logits", "Gemm"), ("softmax", "Softmax"), ("sigmoid", "Sigmoid")])
def test_what_torch_exports_is_read(ends: str, last: str) -> None:
    network = onnx_format.read(onnx_files.export(onnx_files.Small(ends=ends), (1, 3, 16, 16)))
    assert network.input.name == "pictures"
    assert network.input.shape == (None, 3, 16, 16)
    assert network.output.shape == (None, 5)
    assert network.last == last
    assert network.opset == 17


def test_a_weight_that_is_listed_as_an_input_too_is_none() -> None:
    model = onnx_files.plain()
    helper = onnx_files.onnx().helper
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [3, 5]))
    assert onnx_format.read(model.SerializeToString()).input.name == "x"


def external(path: str = "../../etc/passwd", **how: Any) -> Any:
    model = onnx_files.plain()
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = onnx_files.onnx().TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", path
    for name, value in how.items():
        setattr(weight, name, value)
    return model


def external_in_a_constant() -> Any:
    model = onnx_files.plain()
    tensor = external().graph.initializer[0]
    model.graph.node.append(onnx_files.onnx().helper.make_node("Constant", [], ["c"], value=tensor))
    return model


def external_and_hidden() -> Any:
    """External data named, and the location set back: some readers look at one, some at the other."""
    return external(data_location=0)


def custom_operator() -> Any:
    model = onnx_files.plain()
    model.graph.node.append(onnx_files.onnx().helper.make_node("Shell", ["x"], ["z"], domain="evil.example"))
    return model


def own_functions() -> Any:
    onnx, model = onnx_files.onnx(), onnx_files.plain()
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("own", "f", ["a"], ["b"], [node], opsets))
    return model


def branching() -> Any:
    onnx, model = onnx_files.onnx(), onnx_files.plain()
    body = onnx.helper.make_graph([], "b", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    return model


def ports(inputs: list[Any] | None = None, outputs: list[Any] | None = None) -> Any:
    return onnx_files.made(list(onnx_files.plain().graph.node), inputs=inputs, outputs=outputs)


def info(name: str, kind: int, shape: list[Any]) -> Any:
    return onnx_files.onnx().helper.make_tensor_value_info(name, kind, shape)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "external data": (external, "onnx_external_data"),
    "external data in a constant": (external_in_a_constant, "onnx_external_data"),
    "external data that is hidden": (external_and_hidden, "onnx_external_data"),
    "an operator of another domain": (custom_operator, "onnx_custom_op"),
    "functions of its own": (own_functions, "onnx_custom_op"),
    "a graph in a graph": (branching, "onnx_subgraph"),
    "two inputs": (lambda: ports([info("x", 1, ["n", 3, 8, 8]), info("x2", 1, [1])]), "onnx_input"),
    "bytes as input": (lambda: ports([info("x", 2, ["n", 3, 8, 8])]), "onnx_input"),
    "an input of three sides": (lambda: ports([info("x", 1, [3, 8, 8])]), "onnx_input"),
    "two outputs": (lambda: ports(None, [info("y", 1, ["n", 5]), info("f", 1, ["n", 3])]), "onnx_output"),
    "an output of four sides": (lambda: ports(None, [info("y", 1, ["n", 5, 4, 4])]), "onnx_output"),
    "class numbers as output": (lambda: ports(None, [info("y", 7, ["n", 5])]), "onnx_output"),
    "no graph": (lambda: b"\x08\x08", "onnx_invalid"),
    "nothing": (lambda: b"", "onnx_invalid"),
    "text": (lambda: b"hello, world", "onnx_invalid"),
}


@pytest.mark.parametrize("what", BAD)
def test_it_is_refused_with_its_code(what: str) -> None:
    make, code = BAD[what]
    assert refused(make()) == code


def test_a_cut_off_file_is_refused_wherever_it_is_cut() -> None:
    data = onnx_files.export(onnx_files.Small(), (1, 3, 16, 16))
    assert {refused(data[:at]) for at in range(0, len(data) - 1, 97)} <= {"onnx_invalid", "onnx_output", "onnx_input"}


def test_two_graphs_are_refused_rather_than_merged() -> None:
    """protobuf merges them: what we had looked at would not be what runs."""
    evil = custom_operator().graph.SerializeToString()
    size = len(evil)
    field = b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7]) + evil
    assert refused(onnx_files.plain().SerializeToString() + field) == "onnx_invalid"


def test_damage_is_refused_or_harmless_and_never_a_fault_of_ours() -> None:
    data = onnx_files.export(onnx_files.Small(), (1, 3, 16, 16))
    chance = random.Random(5)
    for _ in range(400):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(ArtifactError):
            onnx_format.read(bytes(broken))


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "MAX_BYTES", 10)
    assert refused(onnx_files.plain()) == "onnx_too_large"
