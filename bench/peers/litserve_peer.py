"""LitServe with our kernel: two workers, batches of eight, pictures as raw bytes.

python -m bench.peers.litserve_peer MODEL [--stock]    --stock: with Pillow and eager torch
"""

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
from fastapi import Body

from bench.peers import feed, kernel, protocol

WORKERS = 2
Jpeg = Annotated[bytes, Body(media_type="application/octet-stream")]


class Tagger(litserve.LitAPI):
    """JPEG to tags."""

    def __init__(self, model: Path, chosen: kernel.Kernel) -> None:
        super().__init__(max_batch_size=kernel.BATCH, batch_timeout=0.01)
        self._model = model
        self._kernel = chosen

    def setup(self, device: str) -> None:
        kernel.single_threaded()
        self._request = self._kernel.request(self._model)

    def decode_request(self, request: Jpeg) -> Any:
        return self._kernel.crop(request)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        for at, picture in enumerate(inputs):
            self._request.put(at, picture)
        return kernel.tags(self._request.run(), len(inputs))

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--stock", action="store_true")
    arguments.add_argument("--server", type=int, metavar="PORT")
    options = arguments.parse_args()
    if options.server:
        api = Tagger(options.model, kernel.STOCK if options.stock else kernel.OURS)
        server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=120)
        server.run(host="127.0.0.1", port=options.server, log_level="warning", generate_client_file=False)
        return
    port = feed.free_port()
    command = [sys.executable, "-m", "bench.peers.litserve_peer", *sys.argv[1:], "--server", str(port)]
    with feed.running(command, f"http://127.0.0.1:{port}/health"):
        target = f"http://127.0.0.1:{port}/predict"
        protocol.serve(lambda asked: feed.feed(asked, target), decoder=kernel.decoder())


if __name__ == "__main__":
    main()
