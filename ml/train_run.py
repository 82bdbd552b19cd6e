"""One training run from its first step to its last: epochs, validation, checkpoints, and what the artifact holds.

Checks no data and starts no process: `ml.train` does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml import batchnorm, checkpoint, heads, metrics
from ml.artifact import Artifact
from ml.card import Label, ModelCard
from ml.distributed import Ranks
from ml.errors import ArtifactError, DatasetError, TrainingError, TrainingStopped
from ml.manifest import Entry, Manifest
from ml.pixel_cache import PixelCache
from ml.presets import to_card
from ml.train_config import TrainConfig
from ml.train_loop import Event, Learner, Pictures, Recipe, batches_per_epoch, epoch_batches, inputs, predict

_UNFOLD_PICTURES = 512


class Run:
    """One training run: what changes while it goes, and what of it a checkpoint holds."""

    def __init__(
        self,
        manifest: Manifest,
        config: TrainConfig,
        cache: PixelCache,
        out_dir: Path,
        init: Artifact | Path | None,
        on_event: Callable[[Event], None],
        *,
        fresh: bool,
        should_stop: Callable[[], bool],
        ranks: Ranks,
        max_workers: int | None = None,
    ) -> None:
        self.should_stop, self.ranks = should_stop, ranks
        self.manifest, self.config, self.out_dir, self.on_event = manifest, config, out_dir, on_event
        self.parent = init.card.ref if isinstance(init, Artifact) else init.name if init else None
        self.training = _pictures(manifest, manifest.split(config.train_split), cache)
        self.validation = _pictures(manifest, manifest.split(config.validation_split), cache)
        if not self.training.images:
            raise DatasetError("dataset_empty", f"no picture in split {config.train_split!r}", field=config.train_split)
        if len(self.training.images) < ranks.world:
            raise DatasetError("dataset_empty", f"fewer pictures than {ranks.world} devices", field=config.train_split)
        learned = [entry for entry in manifest.split(config.train_split) if entry.image in cache]
        self.heads = heads.heads(manifest, learned, config.balance)
        torch.manual_seed(config.seed if config.init_seed is None else config.init_seed)
        network, last = heads.network(config.architecture, manifest, init)
        recipe = Recipe(
            preset=config.preprocessing(),
            size=config.train_size or config.size,
            augmentation=config.augmentation,
            smoothing=config.label_smoothing,
            ema_decay=config.ema_decay,
            seed=config.seed,
            workers=min(config.workers, max_workers or config.workers),
            bf16=config.bf16(),
            device=ranks.device if ranks.world > 1 else torch.device(config.device),
            ranks=ranks,
        )
        # A fresh network looks folded too; it knows nothing that could be undone.
        if fresh and init is not None and batchnorm.is_folded(network):
            some = Pictures(self.training.images[:_UNFOLD_PICTURES], self.training.targets, cache)
            normaliser = recipe.preset.normaliser()
            batchnorm.unfold(network, (normaliser(batch) for batch in inputs(some, recipe, config.batch_size)))
            on_event({"event": "batchnorm_unfolded", "pictures": len(some.images)})
        self.learner = Learner(network, last, self.heads, recipe, lr=config.lr, decay=config.weight_decay)
        self.learner.pieces = config.accumulation
        self.steps = batches_per_epoch(len(self.training.images), config.step_size)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = -1
        self.last_checkpoint: str | None = None

    def to_the_end(self, total: int) -> None:
        """Every epoch that is still missing of `total`. Raises TrainingError and TrainingStopped."""
        self.on_event({"event": "started", "step": self.learner.step, "epochs": total, "steps_per_epoch": self.steps,
                       "pictures": len(self.training.images), "batch": self.config.step_size})  # fmt: skip
        for epoch in range(self.learner.step // self.steps, total):
            if self._finished():
                return
            self._epoch(epoch)
            # The first validates, and the others take its word: they must agree on when to end.
            metrics_of = self.ranks.of_first(self._validate() if self.ranks.first else None)
            self.history.append({"epoch": epoch, "metrics": metrics_of})
            self.on_event({"event": "epoch", "epoch": epoch, "epochs": total, "step": self.learner.step,
                           "metrics": self.history[-1]["metrics"]})  # fmt: skip
            self._remember(epoch)
            self._checkpoint()

    def _finished(self) -> bool:
        patience = self.config.patience
        return patience is not None and len(self.history) - 1 - self.best_epoch >= patience and bool(self.history)

    def _epoch(self, epoch: int) -> None:
        config, learner = self.config, self.learner
        learner.train_mode(only_head=epoch < config.head_epochs)
        if epoch >= config.head_epochs + config.epochs - config.plain_epochs:
            learner.recipe = replace(learner.recipe, augmentation=config.augmentation.plain())
        first = self.learner.step - epoch * self.steps
        for step, batch, targets in epoch_batches(
            self.training, self.config.step_size, epoch, first, self.learner.recipe
        ):
            lr = self._lr(epoch, step)
            try:
                value = self.learner.learn(batch, targets, lr, f"{self.config.seed}/{epoch}/{step}", self.on_event)
            except TrainingError as error:
                error.checkpoint = self.last_checkpoint
                raise
            self.on_event({"event": "step", "epoch": epoch, "step": self.learner.step, "loss": value, "lr": lr})
            stopping = self.ranks.of_first(self.should_stop())
            if stopping or (self.learner.step % self.config.checkpoint_steps == 0 and step + 1 < self.steps):
                self._checkpoint()
            if stopping:
                raise TrainingStopped(self.learner.step, self.last_checkpoint)

    def _lr(self, epoch: int, step: int) -> float:
        config = self.config
        at = epoch * self.steps + step
        if epoch < config.head_epochs:
            return config.head_lr
        at -= config.head_epochs * self.steps
        warmup = round(config.warmup_epochs * self.steps)
        if at < warmup:
            return config.lr * (at + 1) / warmup
        share = (at - warmup) / max(1, config.epochs * self.steps - warmup)
        return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)

    def _validate(self) -> dict[str, float]:
        """Per group: the top-1 accuracy, or the mean average precision; "score" is their mean."""
        if not self.validation.images:
            return {}
        logits = predict(self.learner, self.learner.average, self.validation, self.config.batch_size)
        found = {head.name: _quality(head, logits, self.validation.targets) for head in self.heads}
        known = [value for value in found.values() if not math.isnan(value)]
        return found | {"score": float(np.mean(known))} if known else {}

    def _remember(self, epoch: int) -> None:
        score = self.history[-1]["metrics"].get("score", math.nan)
        best = self.history[self.best_epoch]["metrics"].get("score", math.nan) if self.best_epoch >= 0 else -1.0
        if self.config.patience is not None and (score > best or math.isnan(score)):
            self.best_epoch = epoch
            self.best = {name: value.clone() for name, value in self.learner.average.state_dict().items()}

    def _checkpoint(self) -> None:
        if not self.ranks.first:
            return
        learner = self.learner
        parts: dict[str, dict[str, Tensor]] = {
            "network": learner.network.state_dict(),
            "average": learner.average.state_dict(),
            "best": self.best,
            "optimizer": {
                f"{at}/{key}": value
                for at, values in learner.optimizer.state_dict()["state"].items()
                for key, value in values.items()
            },
        }
        tensors = {f"{part}/{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
        state = {
            "config": self.config.sha256(),
            "manifest": self.manifest.sha256,
            "step": learner.step,
            "averaged": learner.averaged,
            "pieces": learner.pieces,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        try:
            self.last_checkpoint = str(checkpoint.save(self.out_dir, checkpoint.Checkpoint(tensors, state)))
        except OSError as error:
            # A full disk costs the progress since the old checkpoint only if the run dies before the next one.
            self.on_event({"event": "checkpoint_failed", "step": learner.step, "detail": str(error)})
            return
        self.on_event({"event": "checkpoint", "step": learner.step, "path": self.last_checkpoint})

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint. Raises TrainingError('checkpoint_mismatch') for another run's."""
        for what, own in (("config", self.config.sha256()), ("manifest", self.manifest.sha256)):
            if saved.state.get(what) != own:
                raise TrainingError("checkpoint_mismatch", f"the checkpoint belongs to another {what}")
        learner = self.learner
        learner.network.load_state_dict(saved.part("network"))
        learner.average.load_state_dict(saved.part("average"))
        optimizer = learner.optimizer.state_dict()
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.part("optimizer").items():
            at, _, key = name.partition("/")
            states.setdefault(int(at), {})[key] = tensor
        learner.optimizer.load_state_dict({"state": states, "param_groups": optimizer["param_groups"]})
        learner.step, learner.averaged = saved.state["step"], saved.state["averaged"]
        learner.pieces = saved.state["pieces"]
        self.best, self.best_epoch = saved.part("best"), saved.state["best_epoch"]
        self.history = list(saved.state["history"])
        self.last_checkpoint = str(self.out_dir / checkpoint.FILE)
        self.on_event({"event": "resumed", "step": learner.step})

    def weights(self) -> dict[str, Tensor]:
        """What the artifact stores: the moving average, of the best epoch where there is one."""
        state = self.best or self.learner.average.state_dict()
        if self.config.half_weights:
            state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise ArtifactError("weights_mismatch", "some weights are not finite; half_weights=False may help")
        return state

    def card(self) -> ModelCard:
        """The model's card, with the validation figures of the epoch that is kept."""
        config = self.config
        labels = tuple(
            Label(label, head.name, taxonomy_id=config.taxonomy.get(f"{head.name}:{label}"))
            for head in self.heads
            for label in head.labels
        )
        kept = self.history[self.best_epoch] if self.best_epoch >= 0 else self.history[-1]
        return ModelCard(
            name=config.name,
            version=config.version,
            task="tags",
            architecture=config.architecture,
            labels=labels,
            head={head.name: "softmax" if head.kind == "exclusive" else "sigmoid" for head in self.heads},
            preset=to_card(config.preprocessing()),
            precision=config.serve_precision,
            metrics={"validation": kept["metrics"], "epochs": kept["epoch"] + 1, "pictures": len(self.training.images)},
            data_manifest_sha256=self.manifest.sha256,
            licence=config.licence,
            source=config.source,
            parent=self.parent,
        )


def _pictures(manifest: Manifest, entries: Sequence[Entry], cache: PixelCache) -> Pictures:
    kept = [entry for entry in entries if entry.image in cache]
    return Pictures(tuple(entry.image for entry in kept), heads.targets(manifest, kept), cache)


def _quality(head: heads.Head, logits: Tensor, targets: Tensor) -> float:
    wanted, found = targets[:, head.start : head.stop], logits[:, head.start : head.stop]
    known = (wanted != heads.UNKNOWN).all(1)
    if not bool(known.any()):
        return math.nan
    if head.kind == "exclusive":
        return float((found[known].argmax(1) == wanted[known].argmax(1)).float().mean())
    columns = zip(found[known].double().numpy().T, wanted[known].numpy().T == 1, strict=True)
    return float(np.nanmean([metrics.average_precision(scores, true) for scores, true in columns]))
