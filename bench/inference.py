"""What inference costs beside the bare network: CPU milliseconds an image by part, and the share that the network has.

python -m bench.inference [--model FOLDER] [--count 256] [--rounds 7] [--folder ../shared/data/clothing/images]

For the way without torch (`ml.plain_predictor`) and the one with it: `bare` is OpenVINO on batches that are ready,
`prepare` decoding and the preset, `predict` the predictor over prepared pictures, `stream` all of it as the worker does
it, with a decode thread, and the scores made ready for their rows. Goal: (bare + prepare) / stream ≥ 0.90: what
batcher, predictor and threads add is at most a tenth. Rounds are interleaved; CPU time is counted, not the clock.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.system import SHARED
from bench.tables import spread
from ml import artifact, batcher, exported, images
from ml.batcher import Predicts
from ml.plain_predictor import PlainPredictor
from ml.predictor import Predictor
from worker import verdicts

_SHIPPED = Path(__file__).resolve().parents[1] / "ml" / "shipped" / "clothing"
_SIDE, _QUALITY = 384, 90


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=_SHIPPED)
    arguments.add_argument("--count", type=int, default=256)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    options = arguments.parse_args()
    copies = _working_copies(options.folder, options.count)
    loaded = artifact.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        exported.write(loaded, Path(folder))
        plain = PlainPredictor([(loaded.card, exported.read(Path(folder), loaded.sha256))])
    usual = Predictor([loaded], backend="openvino")
    ways = {"without torch": _parts(plain, copies), "with torch": _parts(usual, copies)}
    spent: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for way, parts in ways.items():
            for part, run in parts.items():
                spent.setdefault((way, part), []).append(_cpu_ms(run) / len(copies))
    Console(highlight=False).print(_table(loaded.card.ref, list(ways), spent))


def _working_copies(folder: Path, count: int) -> list[bytes]:
    photos = sorted(folder.glob("*.jpg"))[:count]
    if not photos:
        raise SystemExit(f"{folder} has no photos")
    limits = images.Limits(draft_short_side=_SIDE)
    return [images.working_copy(images.read(photo.read_bytes(), limits), _SIDE, _QUALITY) for photo in photos]


def _parts(predictor: Predicts, copies: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    prepared = [predictor.prepare(data) for data in copies]
    stacked = np.stack([np.asarray(each.inputs[0]) for each in prepared])
    (chosen,) = predictor.backends.values()
    compiled = chosen.backend.compiled
    size = predictor.batch_size

    def stream() -> None:
        source = [(at, partial(bytes, data)) for at, data in enumerate(copies)]
        for _, scores in batcher.stream(source, predictor):
            assert isinstance(scores, dict)
            for each in scores.values():
                verdicts.stored(each)

    return {
        "bare": lambda: [compiled.infer(stacked[at : at + size]) for at in range(0, len(stacked), size)],
        "prepare": lambda: [predictor.prepare(data) for data in copies],
        "predict": lambda: predictor.predict(prepared),
        "stream": stream,
    }


def _cpu_ms(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return (time.process_time() - began) * 1000


def _table(ref: str, ways: Sequence[str], spent: dict[tuple[str, str], list[float]]) -> Table:
    table = Table(title=f"{ref}: CPU ms an image, median (least–most)", title_justify="left", box=None)
    table.add_column("")
    for way in ways:
        table.add_column(way, justify="right")
    for part in ("bare", "prepare", "predict", "stream"):
        table.add_row(part, *(spread(spent[way, part], ".2f") for way in ways))
    shares = []
    for way in ways:
        rounds = zip(*(spent[way, part] for part in ("bare", "prepare", "stream")), strict=True)
        shares.append(spread([(bare + prepare) / stream for bare, prepare, stream in rounds], ".2f"))
    table.add_row("(bare + prepare) / stream", *shares)
    return table


if __name__ == "__main__":
    main()
