"""What is known of a picture when a policy decides on it. Data only: how it is weighed is in `db.policy`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

NUMBERS: Final = (
    "width",
    "height",
    "short_side",
    "long_side",
    "aspect",
    "pixels",
    "bytes",
    "sharpness",
    "pdq_quality",
)
WORDS: Final = ("format",)
"""The content facts that a rule may ask for: numbers, and one that is a word."""
FACT_COLUMNS: Final = ("width", "height", "bytes", "format", "sharpness", "pdq_quality")
"""The columns of `images` that they are made of."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry of a hash bank that the picture matches, and how many of the 256 bits differ."""

    bank: str
    kind: Literal["block", "allow"]
    entry: UUID
    distance: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """`scores`: class → 0…1 of the moderation model; None while there are none. `tags`: [{label, group, score}] of the
    tagger, likewise. `facts`: as `facts` makes them. `account`: its name. `context`: where the picture is to be shown,
    `category`: what its owner declares it to be. `late`: it waited longer than the policy allows."""

    scores: Mapping[str, float] | None
    tags: Sequence[Mapping[str, Any]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    hits: Sequence[Hit] = ()
    context: str = ""
    account: str = ""
    category: str | None = None
    late: bool = False


def facts(
    *,
    width: int,
    height: int,
    bytes: int,
    format: str,
    sharpness: float | None = None,
    pdq_quality: int | None = None,
) -> dict[str, Any]:
    """The content facts of a row of `images`; `aspect` is width by height. What was not measured is absent."""
    known: dict[str, Any] = {
        "width": width,
        "height": height,
        "short_side": min(width, height),
        "long_side": max(width, height),
        "aspect": width / height,
        "pixels": width * height,
        "bytes": bytes,
        "format": format.lower(),
    }
    if sharpness is not None:
        known["sharpness"] = sharpness
    if pdq_quality is not None:
        known["pdq_quality"] = pdq_quality
    return known
