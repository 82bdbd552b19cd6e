"""What a batch goes through between a preset and its network, where the network is; knows no picture."""

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """(x − mean)/std per channel, in float32, of a batch N×3×H×W; moves to the device with its network."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, batch: Tensor) -> Tensor:
        return (batch.float() - self.mean) / self.std
