"""The promotion gate: whether a candidate falls behind the active version beyond set margins. Pure: no I/O, no clock.

Metrics are flat, name → value, higher is better: `overall/…` for a whole group, `label/…` for one label, `slice/…` for
one value of a column. Only what the active version was measured on is asked of the candidate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Margins:
    """How far a candidate's metric may lie below the active version's. Labels and slices are small: noisier."""

    overall: float = 0.01
    label: float = 0.05
    slice: float = 0.05

    def of(self, metric: str) -> float | None:
        """The margin of a metric, by the first part of its name; None for one that the gate does not judge."""
        return {"overall": self.overall, "label": self.label, "slice": self.slice}.get(metric.partition("/")[0])


MARGINS: Final = Margins()


@dataclass(frozen=True)
class Shortfall:
    """A metric in which the candidate falls behind; `candidate` is None where it was not measured at all."""

    metric: str
    active: float
    candidate: float | None
    margin: float

    def __str__(self) -> str:
        has = "is not measured" if self.candidate is None else f"{self.candidate:.4f}"
        return f"{self.metric}: {has}, the active version has {self.active:.4f} (margin {self.margin:g})"

    def row(self) -> dict[str, Any]:
        """For the audit log."""
        return {"metric": self.metric, "active": self.active, "candidate": self.candidate, "margin": self.margin}


def shortfalls(
    active: Mapping[str, float], candidate: Mapping[str, float], margins: Margins = MARGINS
) -> list[Shortfall]:
    """Everything in which the candidate is too far behind, worst first; empty: the gate is open."""
    found = []
    for metric, value in active.items():
        margin = margins.of(metric)
        if margin is None:
            continue
        other = candidate.get(metric)
        # A hair of tolerance, so that 0.90 against 0.91 is not refused by the last bit of a float.
        if other is None or other < value - margin - 1e-9:
            found.append(Shortfall(metric, value, other, margin))
    return sorted(found, key=lambda s: (s.candidate is not None, (s.candidate or 0.0) - s.active, s.metric))
