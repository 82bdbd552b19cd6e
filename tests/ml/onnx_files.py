"""ONNX files for tests: small networks exported by torch, and models of onnx.helper. Needs the extra `keras`."""

import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

LABELS = ("dress", "shirt", "shoe", "hat", "bag")


def onnx() -> Any:
    """The library, or a skipped test that says so."""
    return pytest.importorskip("onnx", reason="the extra `keras` (onnx) is not installed")


class Small(nn.Module):
    """A convolution, BatchNorm and a linear layer with random weights; takes and gives what its arguments say."""

    def __init__(self, labels: int = len(LABELS), *, ends: str = "logits", layout: str = "NCHW") -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, labels)
        self.ends, self.layout = ends, layout
        with torch.no_grad():
            self.features[1].running_mean.normal_()
            self.features[1].running_var.uniform_(0.5, 2)
            self.classifier.weight.mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "NHWC":
            x = x.permute(0, 3, 1, 2)
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return {"logits": lambda y: y, "softmax": lambda y: y.softmax(1), "sigmoid": torch.sigmoid}[self.ends](logits)


def export(network: nn.Module, shape: tuple[int, ...], *, dynamic: bool = True) -> bytes:
    """`network` as ONNX for pictures of `shape` (with the batch in front), any number of them if `dynamic`."""
    onnx()
    out = io.BytesIO()
    axes = {"pictures": {0: "n"}, "scores": {0: "n"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(shape),), out, input_names=["pictures"], output_names=["scores"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    return out.getvalue()


def made(nodes: list[Any], *, inputs: list[Any] | None = None, outputs: list[Any] | None = None, **graph: Any) -> Any:
    """A model of onnx.helper around `nodes`: input x N×3×8×8, output y N×5, unless given."""
    helper, kind = onnx().helper, onnx().TensorProto.FLOAT
    taken = inputs or [helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])]
    given = outputs or [helper.make_tensor_value_info("y", kind, ["n", 5])]
    return helper.make_model(
        helper.make_graph(nodes, "g", taken, given, **graph), opset_imports=[helper.make_opsetid("", 17)]
    )


def plain() -> Any:
    """A model that passes: mean colours times a matrix."""
    import numpy as np

    helper = onnx().helper
    weight = onnx().numpy_helper.from_array(np.arange(15, dtype=np.float32).reshape(3, 5), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return made(nodes, initializer=[weight])
