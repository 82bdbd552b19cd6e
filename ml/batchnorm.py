"""BatchNorm's statistics: measured anew, and given back to layers that were folded into their convolutions; trains
nothing.

Weights that went through an inference format come with mean 0, variance 1 and scale 1. Such a network answers
well, but the first training step normalises by the batch's own statistics and undoes what it knew.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ml.errors import DatasetError

_FOLDED = 1e-3  # how near to 0 and 1 the statistics are; BatchNorm's epsilon moves them by 1e-5


def is_folded(network: nn.Module) -> bool:
    """Whether every BatchNorm changes nothing but by its bias. A network without BatchNorm is not."""
    layers = _layers(network)
    return bool(layers) and all(
        layer.running_mean is not None
        and layer.running_var is not None
        and bool(layer.running_mean.abs().max() < _FOLDED)
        and bool((layer.running_var - 1).abs().max() < _FOLDED)
        and bool((layer.weight - 1).abs().max() < _FOLDED)
        for layer in layers
    )


@torch.no_grad()
def unfold(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every BatchNorm's statistics to those of its inputs over `batches` (normalised, N×3×H×W), and its scale
    and bias so that the network in eval mode computes what it did before.
    """
    layers = _layers(network)
    sums = {layer: torch.zeros(3, layer.num_features, dtype=torch.float64) for layer in layers}
    hooks = [layer.register_forward_pre_hook(partial(_collect, sums[layer])) for layer in layers]
    network.eval()
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        count, total, squares = sums[layer].to(layer.weight.device)
        mean = total / count
        # A channel that is dead on these pictures keeps a variance that cannot blow up a later one.
        variance = (squares / count - mean**2).clamp(min=1e-4)
        old = layer.weight / (_set(layer.running_var) + layer.eps).sqrt()
        layer.bias.add_((mean - _set(layer.running_mean)).to(layer.bias) * old)
        layer.weight.copy_((variance + layer.eps).sqrt() * old)
        _set(layer.running_mean).copy_(mean)
        _set(layer.running_var).copy_(variance)


def layers_of(network: nn.Module) -> list[_BatchNorm]:
    """Every layer that keeps statistics of what went through it."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def measure(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every BatchNorm's statistics to the mean over `batches` (normalised, N×3×H×W); leaves the network in eval
    mode. Raises DatasetError('dataset_empty') without a batch of two pictures, which have no variance."""
    network.eval()
    found = layers_of(network)
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for the plain mean of all batches
        layer.train()
    seen = 0
    for batch in batches:
        if len(batch) > 1:
            network(batch)
            seen += 1
    for layer, momentum in zip(found, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
    if not seen:
        raise DatasetError("dataset_empty", "no picture to measure BatchNorm's statistics on")


def _layers(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.affine]


def _set(statistics: Tensor | None) -> Tensor:
    if statistics is None:
        raise ValueError("a BatchNorm without running statistics")
    return statistics


def _collect(sums: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    del layer
    values = inputs[0].detach()
    # Per batch in float32, which is exact enough and several times quicker; across batches in float64.
    variance, mean = (part.double().cpu() for part in torch.var_mean(values, (0, 2, 3), correction=0))
    count = values.numel() / values.shape[1]
    sums[0] += count
    sums[1] += count * mean
    sums[2] += count * (variance + mean**2)
