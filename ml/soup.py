"""The average of several trained networks as one network; trains and judges nothing.

A "model soup" (Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", 2022): fine-tuned from the same start, networks lie in one basin, and their mean is
better and better calibrated than each, at the cost of one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ml.artifact import Artifact
from ml.errors import ArtifactError


def average(models: Sequence[Artifact]) -> dict[str, Tensor]:
    """The mean of every weight and BatchNorm statistic, in fp32; counters are the first model's.

    Only models of the same architecture, labels, heads and preset can be averaged: ArtifactError('weights_mismatch')
    names the one that differs.
    """
    first = models[0]
    for other in models[1:]:
        for name in ("architecture", "head", "preset"):
            if getattr(other.card, name) != getattr(first.card, name):
                raise _differs(first, other, name)
        if [(one.group, one.name) for one in other.card.labels] != [(one.group, one.name) for one in first.card.labels]:
            raise _differs(first, other, "labels")
        if {name: value.shape for name, value in other.state.items()} != {
            name: value.shape for name, value in first.state.items()
        }:
            raise _differs(first, other, "shape of weights")
    return {
        name: torch.stack([model.state[name].float() for model in models]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in first.state.items()
    }


def _differs(first: Artifact, other: Artifact, what: str) -> ArtifactError:
    return ArtifactError("weights_mismatch", f"{other.card.ref} has another {what} than {first.card.ref}", field=what)
