"""An int8 network of an exported one, by post-training quantisation, and what it costs in accuracy. Stores nothing.

    pictures of one split ─► NNCF ─► int8 network ─┐
    labelled pictures of another split ────────────┴─► both networks ─► ml.int8_gate ─► offered, or refused with figures

The optional extra `int8` (NNCF). Workers never import this: they read what `ml.exported` kept of it.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml import batcher, int8_gate, presets, scoring
from ml.batcher import Failure
from ml.card import ModelCard
from ml.choice import Choice
from ml.errors import BackendError, DatasetError, PrepareError, QuantiseError
from ml.exported import Exported
from ml.int8_gate import MARGIN, Compared
from ml.manifest import Entry, Manifest
from ml.openvino_runtime import SIZES, Array, Compiled, openvino
from ml.plain_predictor import PlainPredictor
from ml.scores import Scores
from ml.scoring import Gathered
from ml.working_copy import opened

PICTURES = 300
LEARN_FROM, SPLIT = "train", "validation"
FP32, INT8 = "fp32", "int8"


@dataclass(frozen=True, slots=True)
class How:
    """What to learn the ranges of numbers from and what to judge on. `below_card`: although the card asks for fp32;
    `few_pictures`: although they are too few to be sure."""

    pictures: int = PICTURES
    learn_from: str = LEARN_FROM
    split: str = SPLIT
    seed: int = 0
    threads: int = 1
    below_card: bool = False
    few_pictures: bool = False


@dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 network and what the evaluation says of it. `refused`: why it is not offered, None where it is."""

    network: Exported
    compared: tuple[Compared, ...]
    refused: QuantiseError | None


def quantise(card: ModelCard, exported: Exported, manifest: Manifest, root: Path, how: How = How()) -> Quantised:
    """Quantise what was exported of `card`, and judge it on labelled pictures that it did not learn from.

    Raises QuantiseError('extra_missing', 'int8_forbidden', 'int8_not_possible'), DatasetError, BackendError.
    """
    if find_spec("nncf") is None:
        raise QuantiseError("extra_missing", "the extra `int8` (NNCF) is not installed: pip install 'tagmill[int8]'")
    if card.precision == "fp32" and not how.below_card:
        detail = f"the card of {card.ref} asks for fp32; --below-card goes past it, if the figures hold"
        raise QuantiseError("int8_forbidden", detail)
    if how.learn_from == how.split:
        raise DatasetError("split_invalid", "judge on another split than the ranges are learned from", field="split")
    learned = _prepared(card, manifest.split(how.learn_from), root, how)
    network = network_of(exported, learned)
    before, after = _scored(card, exported, network, manifest, root, how)
    compared = int8_gate.compare(before, after, list(card.groups))
    refused = _refused(compared, few_pictures=how.few_pictures)
    core = openvino().Core()
    judged = {
        "offered": refused is None, "below_card": how.below_card, "few_pictures": how.few_pictures, "margin": MARGIN,
        "dataset": f"{manifest.name}@{manifest.version}", "dataset_sha256": manifest.sha256, "split": how.split,
        "pictures": len(before.entries), "unread": len(before.unread),
        "groups": [each.to_dict() for each in compared],
        "learned": {"split": how.learn_from, "pictures": len(learned), "seed": how.seed},
        "cpu": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "versions": {name: version(name) for name in ("openvino", "nncf")},
    }  # fmt: skip
    return Quantised(replace(network, judged=judged), compared, refused)


def network_of(exported: Exported, pictures: Sequence[npt.NDArray[Any]]) -> Exported:
    """The int8 network, the ranges of its numbers learned from prepared `pictures`, with its own logits for the probe.

    Bias correction layer by layer (not the fast one) is what keeps the accuracy: with MobileNetV2 and 300 photos the
    fast one changed the first label of 4.2 % of the photos, this one of 1.1 %, as many as bf16.
    Raises QuantiseError('int8_not_possible').
    """
    openvino()  # before NNCF, which would bring telemetry
    import nncf

    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its bars of progress
            model = nncf.quantize(
                exported.model.clone(),
                nncf.Dataset([picture[None] for picture in pictures]),
                preset=nncf.QuantizationPreset.MIXED,
                fast_bias_correction=False,
                subset_size=len(pictures),
                target_device=nncf.TargetDevice.CPU,
            )
        logits = Compiled(model, exported.inputs.shape[1:], (1,), precision=INT8).infer(exported.inputs)
    except Exception as error:  # NNCF raises what comes of whatever a network has that it does not know
        raise QuantiseError("int8_not_possible", f"{type(error).__name__}: {error}") from error
    return Exported(model, exported.inputs, logits)


def _refused(compared: Sequence[Compared], *, few_pictures: bool) -> QuantiseError | None:
    verdict = int8_gate.worst(compared)
    if verdict == "kept" or (verdict == "unproven" and few_pictures):
        return None
    told = ", ".join(_told(each) for each in compared if each.verdict == verdict)
    if verdict == "lost":
        return QuantiseError("int8_loses_accuracy", f"falls by more than {100 * MARGIN:g} points: {told}")
    return QuantiseError("int8_unproven", f"too few labelled pictures to be sure: {told}; --few-pictures takes it")


def _told(each: Compared) -> str:
    if not each.pictures:
        return f"{each.group} (no picture)"
    needed = f", about {each.needed} would tell" if each.needed else ""
    interval = f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
    return f"{each.group} ({100 * each.change:+.2f} points, {interval}; {each.pictures} pictures{needed})"


def _prepared(card: ModelCard, entries: Sequence[Entry], root: Path, how: How) -> list[npt.NDArray[Any]]:
    """Some pictures of a split at random, as the card's preset makes them; unreadable ones are left out."""
    preset = presets.from_card(card.preset)
    found: list[npt.NDArray[Any]] = []
    for at in np.random.default_rng(how.seed).permutation(len(entries)).tolist():
        if len(found) == how.pictures:
            break
        with contextlib.suppress(*scoring.UNREADABLE, PrepareError):
            found.append(preset.plain(opened(scoring.working_copy(root, entries[at]))))
    if not found:
        raise DatasetError("dataset_empty", f"no picture of the split {how.learn_from!r} to learn from", field="split")
    return found


class _Both:
    """Two predictors over pictures that are prepared once: scores by FP32 and INT8."""

    def __init__(self, card: ModelCard, exported: Exported, network: Exported, threads: int) -> None:
        card, self._ref = replace(card, precision="fp32"), card.ref
        wanted = {card.ref: Choice("openvino", "int8", max(SIZES))}
        both = replace(exported, int8=network)
        self._int8 = PlainPredictor([(card, both)], threads=threads, choices=wanted)
        self._fp32 = PlainPredictor([(card, exported)], threads=threads)
        if (got := self._int8.backends[card.ref]).backend.name != "openvino-int8":
            raise BackendError("backend_disagrees", f"int8: {got.refused.get('openvino-int8')}")
        self.batch_size = self._fp32.batch_size

    @property
    def backends(self) -> Mapping[str, Any]:
        return self._fp32.backends

    def prepare(self, data: bytes) -> Any:
        return self._fp32.prepare(data)

    def predict(self, pictures: Sequence[Any]) -> list[dict[str, Scores]]:
        pairs = zip(self._fp32.predict(pictures), self._int8.predict(pictures), strict=True)
        return [{FP32: old[self._ref], INT8: new[self._ref]} for old, new in pairs]


def _scored(
    card: ModelCard, exported: Exported, network: Exported, manifest: Manifest, root: Path, how: How
) -> tuple[Gathered, Gathered]:
    """The same pictures by both networks, beside the truth."""
    entries = manifest.split(how.split)
    groups = {name: np.array(positions) for name, positions in card.groups.items()}
    source = ((at, partial(scoring.working_copy, root, entry)) for at, entry in enumerate(entries))
    both = _Both(card, exported, network, how.threads)
    found: dict[str, list[tuple[Entry, dict[str, Array] | Failure]]] = {FP32: [], INT8: []}
    for at, outcome in batcher.stream(source, both, decode_threads=how.threads, expected=scoring.UNREADABLE):
        for name, rows in found.items():
            if isinstance(outcome, Failure):
                rows.append((entries[at], outcome))
            else:
                rows.append((entries[at], {group: outcome[name].values[c] for group, c in groups.items()}))
    known, cuts = scoring.model_groups(card, manifest), scoring.thresholds(card)
    return scoring.gather(found[FP32], known, cuts), scoring.gather(found[INT8], known, cuts)
