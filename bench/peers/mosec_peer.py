"""mosec with our kernel: `--prepare` processes decode, `--infer` processes run batches of eight.

python -m bench.peers.mosec_peer MODEL [--prepare 2] [--infer 1] [--stock]    --stock: with Pillow and eager torch
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mosec import Server, Worker

from bench.peers import feed, kernel, protocol

MODEL = Path(sys.argv[1])
KERNEL = kernel.STOCK if "--stock" in sys.argv else kernel.OURS


class Prepare(Worker):
    """JPEG to 224 × 224."""

    def __init__(self) -> None:
        kernel.single_threaded()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Any:
        return KERNEL.crop(data).numpy()


class Infer(Worker):
    """Batches of eight to tags."""

    def __init__(self) -> None:
        kernel.single_threaded()
        self._request = KERNEL.request(MODEL)

    def forward(self, data: list[Any]) -> list[Any]:
        for at, picture in enumerate(data):
            self._request.batch[at] = picture
        return kernel.tags(self._request.run(), len(data))

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--prepare", type=int, default=2)
    arguments.add_argument("--infer", type=int, default=1)
    arguments.add_argument("--stock", action="store_true")
    arguments.add_argument("--server", action="store_true")
    options, _ = arguments.parse_known_args()
    if options.server:
        server = Server()
        server.append_worker(Prepare, num=options.prepare)
        server.append_worker(Infer, num=options.infer, max_batch_size=kernel.BATCH, max_wait_time=10)
        server.run()
        return
    port = feed.free_port()
    own = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "60000", "--log-level", "warning"]
    command = [sys.executable, "-m", "bench.peers.mosec_peer", *sys.argv[1:], "--server", *own]
    with feed.running(command, f"http://127.0.0.1:{port}/"):
        target = f"http://127.0.0.1:{port}/inference"
        protocol.serve(lambda asked: feed.feed(asked, target), decoder=kernel.decoder(), numpy=np.__version__)


if __name__ == "__main__":
    main()
