"""What every system of the comparison shares: the fastest decoder at hand, and the network on OpenVINO in bf16.

`STOCK` has what the peers' own examples have in its place: Pillow, and the network in eager torch.

Knows nothing of Tagmill, so that it runs in the peers' own environments too. Made by `bench.model`.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

try:
    import simplejpeg
except ImportError:  # outside the environments of the comparison
    simplejpeg = None

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
SIZE, SHORT = 224, 256
BATCH = 8
IR = "model.xml"


def decoder() -> str:
    """Which decoder `crop` uses."""
    return "simplejpeg, DCT scale" if simplejpeg is not None else "torchvision"


def crop(data: bytes) -> torch.Tensor:
    """The middle 224 × 224 of a JPEG with its short side at 256: uint8 3×224×224."""
    pixels = _decode(data)
    short = min(pixels.shape[1:])
    side = short * SIZE // SHORT
    return TF.resize(TF.center_crop(pixels, [side, side]), [SIZE, SIZE], antialias=True)


def _decode(data: bytes) -> torch.Tensor:
    """3×H×W. Pictures of twice the wanted side and more are decoded at 1/2, 1/4 or 1/8, which is fast."""
    if simplejpeg is None:
        from torchvision.io import ImageReadMode, decode_jpeg

        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    times = min(height, width) // SHORT
    scale = 1 << min(3, int(math.log2(times))) if times > 1 else 1
    found = simplejpeg.decode_jpeg(
        data, "RGB", min_height=-(-height // scale), min_width=-(-width // scale), strict=False
    )
    return torch.from_numpy(found).permute(2, 0, 1)


class Network:
    """The network for batches of eight uint8 pictures, one thread for each of `streams` requests at a time."""

    def __init__(self, folder: Path, *, streams: int = 1) -> None:
        import openvino as ov

        options = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": "bf16",
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = ov.Core().compile_model(folder / IR, "CPU", options)

    def request(self) -> "Request":
        """For one thread."""
        return Request(self._compiled.create_infer_request())


class Request:
    """Runs batches in one thread; its input is filled in place."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.batch: Pixels = np.zeros((BATCH, 3, SIZE, SIZE), np.uint8)
        self._pictures = torch.from_numpy(self.batch)

    def put(self, at: int, picture: torch.Tensor) -> None:
        """Place a picture in the batch."""
        self._pictures[at] = picture

    def run(self) -> Floats:
        """Logits of the batch; valid until the next run."""
        found: Floats = self._request.infer(self.batch, share_inputs=True, share_outputs=True)[0]
        return found


class Eager:
    """As `Request`, in eager torch, fp32."""

    def __init__(self, folder: Path) -> None:
        import torchvision
        from safetensors.torch import load_file

        self._network = torchvision.models.mobilenet_v3_large()
        self._network.load_state_dict(load_file(folder / "model.safetensors"))
        self._network.eval()
        self.batch: Pixels = np.zeros((BATCH, 3, SIZE, SIZE), np.uint8)
        self._pictures = torch.from_numpy(self.batch)

    def put(self, at: int, picture: torch.Tensor) -> None:
        """Place a picture in the batch."""
        self._pictures[at] = picture

    def run(self) -> Floats:
        """Logits of the batch."""
        with torch.no_grad():
            ready = TF.normalize(self._pictures.float().div_(255), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
            found: Floats = self._network(ready).numpy()
        return found


def pillow_crop(data: bytes) -> torch.Tensor:
    """As `crop`, by Pillow and torchvision's transforms."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return TF.pil_to_tensor(TF.center_crop(TF.resize(image, [SHORT]), [SIZE, SIZE]))


@dataclass(frozen=True)
class Kernel:
    """How a peer decodes, and what it runs batches with (for one thread)."""

    crop: Callable[[bytes], torch.Tensor]
    request: "Callable[[Path], Request | Eager]"


OURS = Kernel(crop, lambda folder: Network(folder).request())
STOCK = Kernel(pillow_crop, Eager)


def tags(logits: Floats, count: int, top: int = 5) -> list[list[tuple[int, float]]]:
    """For the first `count` rows the `top` best labels with their softmax scores, best first."""
    rows = logits[:count]
    exps = np.exp(rows - rows.max(1, keepdims=True))
    scores = exps / exps.sum(1, keepdims=True)
    best = np.argpartition(-scores, top, axis=1)[:, :top]
    return [
        sorted(((int(at), round(float(row[at]), 6)) for at in found), key=lambda pair: -pair[1])
        for row, found in zip(scores, best, strict=True)
    ]


def score(request: Request, datas: list[bytes]) -> list[list[tuple[int, float]]]:
    """Up to eight JPEGs to their tags, one after the other."""
    for at, data in enumerate(datas):
        request.put(at, crop(data))
    return tags(request.run(), len(datas))


def single_threaded() -> None:
    """One thread for torch's own operations: the cores are divided by process and thread, not inside them."""
    torch.set_num_threads(1)
