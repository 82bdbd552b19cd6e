"""Training from a manifest to an artifact: check the data, train in two stages, checkpoint, write the model.

Prints nothing: `on_event` is called with dictionaries. Decides nothing about deployment, calibrates nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ml import artifact, checkpoint, pixel_cache
from ml.artifact import Artifact
from ml.distributed import Ranks
from ml.manifest import Manifest
from ml.train_config import TrainConfig
from ml.train_loop import Event
from ml.train_run import Run

__all__ = ["Place", "TrainConfig", "train", "train_here"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run reads and writes, and how much of the machine it may take.

    `images_root`: what the manifest's paths are relative to. `out_dir`: checkpoints and the artifact; `cache_dir`:
    the decoded pictures. `max_threads`: most threads that compute, and most that prepare pictures; None: as the
    configuration says.
    """

    images_root: Path
    out_dir: Path
    cache_dir: Path
    max_threads: int | None = None


def train(
    manifest: Manifest,
    images_root: Path,
    config: TrainConfig,
    out_dir: Path,
    *,
    init: Artifact | Path | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    cache_dir: Path | None = None,
    max_threads: int | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Artifact:
    """Train and write the artifact into `out_dir`/model; checkpoints and the pixel cache go to `out_dir` too.

    `resume` goes on from the checkpoint, if there is one, and gives the same weights as a run that was never
    stopped, on the same machine with the same number of threads. `stop_after` ends it early, after so many epochs
    (the head's count), and writes what there is; the learning rate follows the configured length. `should_stop` is
    asked after every step: then a checkpoint is written and TrainingStopped raised. With `config.devices` above 1,
    as many processes train (`ml.train_ranks`). Raises DatasetError, ArtifactError (the `init`) and TrainingError.
    """
    place = Place(images_root, out_dir, cache_dir or out_dir, max_threads)
    used = [entry for entry in manifest.entries if entry.split in (config.train_split, config.validation_split)]
    pixel_cache.verify(used, images_root)
    _, skipped = pixel_cache.prepare(manifest, images_root, place.cache_dir, config.cache_side)
    for image, code in skipped.items():
        on_event({"event": "picture_skipped", "image": image, "code": code})
    if config.devices > 1:
        from ml import train_ranks

        return train_ranks.train(
            manifest, config, place, init=init, resume=resume, stop_after=stop_after, on_event=on_event,
            should_stop=should_stop,
        )  # fmt: skip
    return train_here(
        manifest, config, place, init=init, resume=resume, stop_after=stop_after, on_event=on_event,
        should_stop=should_stop,
    )  # fmt: skip


def train_here(
    manifest: Manifest,
    config: TrainConfig,
    place: Place,
    *,
    init: Artifact | Path | None,
    resume: bool,
    stop_after: int | None,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    ranks: Ranks | None = None,
) -> Artifact:
    """The training itself, on checked and decoded pictures, in this process: all of it, or one of several `ranks`."""
    ranks = ranks or Ranks()
    torch.manual_seed(config.seed)
    most = place.max_threads
    if config.threads or most:
        wanted = config.threads or torch.get_num_threads()
        torch.set_num_threads(min(wanted, most or wanted))
    cache, _ = pixel_cache.prepare(manifest, place.images_root, place.cache_dir, config.cache_side)
    saved = checkpoint.load(place.out_dir) if resume and (place.out_dir / checkpoint.FILE).exists() else None
    run = Run(
        manifest, config, cache, place.out_dir, init, on_event,
        fresh=saved is None, should_stop=should_stop, ranks=ranks, max_workers=most,
    )  # fmt: skip
    if saved:
        run.restore(saved)
    run.to_the_end(stop_after or config.head_epochs + config.epochs)
    if not ranks.first:
        return Artifact(run.card(), {}, "")
    return artifact.save(place.out_dir / "model", run.card(), run.weights())
