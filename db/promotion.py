"""The promotion gate: whether a candidate falls behind the active version beyond set margins. Pure: no I/O, no clock.

Metrics are flat, name → value, higher is better: `overall/…` for a whole group, `label/…` for one label, `slice/…` for
one value of a column. Only what the active version was measured on is asked of the candidate.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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


def margins(text: str) -> Margins:
    """Margins as "overall=0.01,label=0.05": those not named stay as they are. Raises ValueError naming the part."""
    found = MARGINS
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{part!r} is not NAME=NUMBER") from None
        if name not in ("overall", "label", "slice") or not 0 <= value <= 1:
            raise ValueError(f"{part!r}: a margin is of overall, label or slice, and lies in 0…1")
        found = replace(found, **{name: value})
    return found


@dataclass(frozen=True)
class Shortfall:
    """A metric in which the candidate falls behind; `candidate` is None where it was not measured at all. `data`: the
    dataset and split that both were measured on."""

    metric: str
    active: float
    candidate: float | None
    margin: float
    data: str | None = None

    def __str__(self) -> str:
        has = "is not measured" if self.candidate is None else f"{self.candidate:.4f}"
        on = f" on {self.data}" if self.data else ""
        return f"{self.metric}: {has}, the active version has {self.active:.4f}{on} (margin {self.margin:g})"

    def row(self) -> dict[str, Any]:
        """For the audit log."""
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """What the gate says of a candidate, and from what.

    `active`: the version that it was compared with, None where nothing is active. `on`: the datasets and splits both
    were measured on, with the number of metrics compared; empty: there was nothing to compare. `missing`: the data that
    the active version was measured on and the candidate was not, if that closes the gate.
    """

    active: str | None = None
    on: tuple[tuple[str, int], ...] = ()
    missing: str | None = None
    behind: tuple[Shortfall, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the candidate may be activated."""
        return not self.behind

    def __str__(self) -> str:
        if self.active is None:
            return "open: no version is active, so nothing was compared"
        if self.missing is not None:
            return f"closed: {self.active} was measured on {self.missing} and this version was not: tagmill evaluate"
        if not self.on:
            return f"open: {self.active} was never evaluated, so nothing was compared"
        total = sum(count for _, count in self.on)
        compared = f"{total} metrics ({', '.join(f'{count} on {data}' for data, count in self.on)})"
        if self.behind:
            return f"closed: behind {self.active} in {len(self.behind)} of {compared}"
        return f"open: not behind {self.active} in any of {compared}"


def shortfalls(
    active: Mapping[str, float], candidate: Mapping[str, float], margins: Margins = MARGINS, data: str | None = None
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
            found.append(Shortfall(metric, value, other, margin, data))
    return sorted(found, key=lambda s: (s.candidate is not None, (s.candidate or 0.0) - s.active, s.metric))
