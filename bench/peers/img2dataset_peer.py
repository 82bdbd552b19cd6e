"""img2dataset with resize, as near to our crawl stage as it comes: short side 384, JPEG quality 90, files on disk.

python -m bench.peers.img2dataset_peer [--mode keep_ratio] [--side 384]    one round a process: its start counts, and is
                                                                           also said alone
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import protocol

PROCESSES, THREADS = 2, 64
START = 8  # pictures of the run that shows what starting costs


def work(asked: protocol.Round, mode: str, side: int) -> protocol.Result:
    """Two runs: one of almost nothing, and the one that counts. `cpu_s` is the second's."""
    start_s, _ = _run(asked.urls[:START], mode, side)
    began = time.perf_counter()
    cpu_s, done = _run(asked.urls, mode, side)
    return protocol.Result(done, cpu_s, time.perf_counter() - began, {"start_cpu_s": start_s})


def _run(urls: list[str], mode: str, side: int) -> tuple[float, int]:
    """(CPU seconds of its processes, pictures written)."""
    with tempfile.TemporaryDirectory(prefix="tagmill-bench-") as name:
        folder = Path(name)
        (folder / "urls.txt").write_text("\n".join(urls))
        options = {
            "url_list": folder / "urls.txt",
            "output_folder": folder / "out",
            "output_format": "files",
            "image_size": side,
            "resize_mode": mode,
            "encode_quality": 90,
            "processes_count": PROCESSES,
            "thread_count": THREADS,
            "number_sample_per_shard": max(1, len(urls) // PROCESSES),
            "enable_wandb": False,
            "retries": 0,
        }
        command = [str(Path(sys.executable).parent / "img2dataset")]
        command += [f"--{key}={value}" for key, value in options.items()]
        before = _children()
        subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"})
        return _children() - before, len(list((folder / "out").rglob("*.jpg")))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mode", default="keep_ratio", choices=["keep_ratio", "center_crop", "no"])
    arguments.add_argument("--side", type=int, default=384)
    options = arguments.parse_args()
    protocol.serve(lambda asked: work(asked, options.mode, options.side))
