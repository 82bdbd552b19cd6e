"""Whether an int8 network is as good as the fp32 one: both on the same labelled pictures, by label group. Pure numpy.

A group is judged by one figure: of labels that exclude each other top-1, of attributes the mean average precision,
which moves with every score and not only with those near a threshold. It may fall by MARGIN, and so may the low end of
the paired 95 % interval: too few pictures are no proof.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from ml import bootstrap, metrics
from ml.metrics import Array, Scored
from ml.scoring import Gathered

MARGIN: Final = 0.005
_Z: Final = 1.959963984540054
# Differences are of shares of few thousand pictures: 2 of 400 are 0.005 exactly, and no float.
_HAIR: Final = 1e-9

Verdict = Literal["kept", "unproven", "lost"]
FIGURES: Final = {"exclusive": "accuracy", "attributes": "mean_average_precision"}


@dataclass(frozen=True, slots=True)
class Compared:
    """One group before (fp32) and after (int8). `change`: after − before, with its interval. `lost`, `won`: pictures
    (of attributes: labels of pictures) that were right before only, and after only. `needed`: about how many pictures
    would tell, where these are too few and any number would do.
    """

    group: str
    figure: str
    pictures: int
    before: float
    after: float
    change: float
    low: float
    high: float
    lost: int
    won: int

    @property
    def verdict(self) -> Verdict:
        if self.change < -MARGIN - _HAIR:
            return "lost"
        return "kept" if self.low >= -MARGIN - _HAIR else "unproven"

    @property
    def needed(self) -> int | None:
        room, half = MARGIN + self.change, self.change - self.low
        if self.verdict != "unproven" or not (room > _HAIR and half > 0):
            return None
        return math.ceil(self.pictures * (half / room) ** 2)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; what is undefined is null."""
        found = {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in asdict(self).items()}
        return found | {"verdict": self.verdict, "needed": self.needed}


def compare(before: Gathered, after: Gathered, groups: Sequence[str]) -> tuple[Compared, ...]:
    """Each of `groups`; one that no picture has a label of is unproven."""
    return tuple(
        _compared(name, before.groups[name], after.groups[name])
        if name in before.groups and before.groups[name].pictures.any()
        else Compared(name, "none", 0, math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)
        for name in groups
    )


def worst(compared: Sequence[Compared]) -> Verdict:
    """Of all groups: "kept" where every one is."""
    verdicts = {each.verdict for each in compared}
    return "lost" if "lost" in verdicts else "unproven" if "unproven" in verdicts or not verdicts else "kept"


def paired(lost: int, won: int, pictures: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two shares of the same pictures (Agresti and Min 2005: half a picture more
    in each cell of the table). Where nothing changed it still has a width, which a bootstrap has not."""
    total, worse, better = pictures + 2, lost + 0.5, won + 0.5
    middle = (better - worse) / total
    half = _Z * math.sqrt(better + worse - (better - worse) ** 2 / total) / total
    return middle - half, middle + half


def _compared(name: str, before: Scored, after: Scored) -> Compared:
    figure, pictures = FIGURES[before.kind], int(before.pictures.sum())
    right = [(each.said() == (each.truth == 1)) & each.known for each in (before, after)]
    if before.kind == "exclusive":
        right = [each.all(1) & before.pictures for each in right]
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    old, new = _figure(before, None), _figure(after, None)
    if before.kind == "exclusive":
        low, high = paired(lost, won, pictures)
    else:
        low, high = _drawn(before, after)
    return Compared(name, figure, pictures, float(old), float(new), float(new - old), low, high, lost, won)


def _drawn(before: Scored, after: Scored) -> tuple[float, float]:
    """The interval of the difference by a paired bootstrap; where every resample says the same, that of `paired`."""
    ends = bootstrap.intervals(
        lambda weights: {"change": _figure(after, weights) - _figure(before, weights)}, len(before.scores)
    )
    low, high = (float(np.asarray(end)) for end in ends["change"])
    return paired(0, 0, int(before.pictures.sum())) if math.isnan(low) else (low, high)


def _figure(scored: Scored, weights: Array | None) -> Array:
    if scored.kind == "exclusive":
        right = (scored.said() & (scored.truth == 1)).any(1)
        return metrics.ratio(metrics.total(right, weights), metrics.total(scored.pictures, weights))
    ranked = metrics.per_label(scored, weights)["average_precision"]
    return metrics.ratio(np.nan_to_num(ranked).sum(-1), (~np.isnan(ranked)).sum(-1))
