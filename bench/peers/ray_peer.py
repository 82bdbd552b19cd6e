"""Ray Data with our kernel: map downloads and decodes, map_batches runs batches of eight in two actors.

python -m bench.peers.ray_peer MODEL [--stock]    one round a process: its start counts; --stock: Pillow, eager torch
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import requests

from bench.peers import kernel, protocol

ACTORS = 2
_sessions: dict[int, requests.Session] = {}


def fetch(row: dict[str, Any], *, stock: bool) -> dict[str, Any]:
    """A URL to its picture's middle. One connection a process."""
    session = _sessions.setdefault(0, requests.Session())
    chosen = kernel.STOCK if stock else kernel.OURS
    return {"picture": chosen.crop(session.get(row["item"], timeout=30).content).numpy()}


class Tagger:
    """An actor with the network."""

    def __init__(self, model: Path, stock: bool) -> None:
        kernel.single_threaded()
        self._request = (kernel.STOCK if stock else kernel.OURS).request(model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        count = len(batch["picture"])
        self._request.batch[:count] = batch["picture"]
        tags = kernel.tags(self._request.run(), count)
        return {"label": np.array([best[0][0] for best in tags]), "score": np.array([best[0][1] for best in tags])}


def work(asked: protocol.Round) -> protocol.Result:
    """The whole of it; `steady`: pictures a second between the first fifth of the results and the last."""
    stock = "--stock" in sys.argv
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = (
        ray.data.from_items(asked.urls, override_num_blocks=max(8, asked.count // 64))
        .map(partial(fetch, stock=stock), num_cpus=1)
        .map_batches(
            Tagger,
            fn_constructor_args=(Path(sys.argv[1]), stock),
            batch_size=kernel.BATCH,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=ACTORS),
        )
    )
    ends = []
    for batch in found.iter_batches(batch_size=kernel.BATCH):
        ends += [time.perf_counter()] * len(batch["label"])
    from_here = len(ends) // 5
    steady = (len(ends) - from_here) / max(1e-9, ends[-1] - ends[from_here])
    return protocol.Result(len(ends), parts={"steady": steady})


if __name__ == "__main__":
    protocol.serve(work, decoder=kernel.decoder())
