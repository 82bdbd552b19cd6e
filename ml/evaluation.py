"""What an evaluation found, as plain data: the one source of the report, of its JSON and of the promotion gate.

Computes nothing. Undefined figures are NaN here and null in JSON.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ml.manifest import Kind
from ml.score_profile import Profile

SCHEMA = 1


class Figure(NamedTuple):
    """A value with its bootstrap interval; all in the value's own unit, NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class About:
    """Which model, on which pictures, how: enough to do it again.

    `pixels`: 'working copy' as in production, or 'original'. `clusters`: the column whose equal values were drawn
    together by the bootstrap.
    """

    model: str
    model_sha256: str
    dataset: str
    data_sha256: str
    split: str
    pixels: str = "working copy"
    backend: str = "unknown"
    rounds: int = 1000
    level: float = 0.95
    seed: int = 0
    clusters: str | None = None


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label. `support`: pictures that have it; `said`: pictures that got it; figures: precision, recall …"""

    label: str
    support: int
    said: int
    threshold: float
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores of like confidence; `accuracy` is how many came true, with its Wilson interval."""

    count: int
    confidence: float
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class Curve:
    """A label against all others at each threshold; `intervals`: low and high ends by the figure's name, NaN where
    every resample agrees."""

    label: str
    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    intervals: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]


@dataclass(frozen=True, slots=True)
class Slice:
    """The pictures with one value of a column. `gap`: their accuracy less that of all others, with an interval that is
    corrected for the number of slices compared; `f1_gap`: the same in micro F1. `flagged`: one of them is large and no
    chance; `worse`: and to the slice's disadvantage. `values` > 1: so many rare values pooled, which is never flagged.
    """

    column: str
    value: str
    values: int
    count: int
    accuracy: Figure
    macro_f1: Figure
    gap: Figure
    flagged: bool
    f1_gap: Figure
    worse: bool


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong decision. `score`: of `said`; `truth_score`: of the true label. Exclusive groups say one label;
    for attributes `said` and `truth` are the label, or 'not' and the label.
    """

    image: str
    truth: str
    said: str
    score: float
    truth_score: float


@dataclass(frozen=True, slots=True)
class GroupEvaluation:
    """One label group. `pictures`: with a known label; `unknown`: left out, for nobody knows theirs.

    `reliability` has bins of equal width, `reliability_equal_count` bins of like count.
    """

    name: str
    kind: Kind
    pictures: int
    unknown: int
    figures: Mapping[str, Figure]
    labels: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...]
    reliability_equal_count: tuple[Bin, ...]
    curves: tuple[Curve, ...]
    slices: tuple[Slice, ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """A picture that could not be scored; `code` is stable."""

    image: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model on one split of a dataset. `scores`: counts of what it said, the baseline that drift is measured from."""

    about: About
    pictures: int
    groups: Mapping[str, GroupEvaluation]
    unread: tuple[Unread, ...]
    scores: Profile | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: figures as {value, low, high}, null where undefined."""
        plain: dict[str, Any] = _plain({**_fields(self), "schema": SCHEMA})
        return plain


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return {name: _plain(number) for name, number in value._asdict().items()}
    if isinstance(value, About):
        return asdict(value)
    if isinstance(value, Profile):
        return value.to_dict()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _plain(_fields(value)) if hasattr(value, "__slots__") else value
