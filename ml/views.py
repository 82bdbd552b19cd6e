"""A picture seen again (mirrored, cut, widened), so that the mean of its scores is steadier. Runs no network.

A network that was trained on few pictures says different things of the same picture recompressed, cropped by a hair or
mirrored. The mean over a few such views says less different things: docs/moderation_accuracy.md measures how much.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    Pixels = TypeVar("Pixels", Tensor, npt.NDArray[np.uint8])


@dataclass(frozen=True, slots=True)
class View:
    """`mirrored`: left is right. `margin`: the share of each side that is cut off at both ends; below 0 the picture
    is widened by as much, its outermost pixels repeated."""

    mirrored: bool = False
    margin: float = 0.0

    def __call__(self, picture: "Pixels") -> "Pixels":
        """uint8 3×H×W, seen so; the picture itself is not changed."""
        seen: Any = picture
        if self.margin:
            rows, columns = (_kept(side, self.margin) for side in picture.shape[1:])
            seen = picture[:, rows][:, :, columns]
        if self.mirrored:
            seen = seen[..., ::-1] if isinstance(seen, np.ndarray) else seen.flip(-1)
        return seen  # type: ignore[no-any-return]


def _kept(side: int, margin: float) -> npt.NDArray[np.intp]:
    """The positions along a side of the pixels that are seen, at least one."""
    cut = round(side * margin)
    return np.arange(cut, side - cut).clip(0, side - 1)


# A card says how many of these are averaged: their order and their numbers are part of every such model, and stay.
# The first is the picture itself. One that is cut and one that is widened, because a closer look at goods raises
# NSFWJS's scores of Porn, and a farther one lowers them.
VIEWS: Final = (View(), View(mirrored=True), View(mirrored=True, margin=0.02), View(margin=-0.03))
