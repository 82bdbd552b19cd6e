"""What a condition of a policy's rules is, and those made of others: `all`, `any`, `not`. Pure.

A condition says of a picture's evidence that it holds, that it does not, or that this cannot be known. Three values
(Kleene): what is unknown stays unknown through `not`, and `all` and `any` give an answer where the known parts decide.
So an answer that was given without a score is the answer with any score.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from db.policy_evidence import Evidence

Finding = dict[str, Any]
Gap = tuple[str, str]
"""What is not known: ("scores", "") and ("tags", "") while a model has not spoken, else ("class" or "fact", name)."""

SCORES: Final[Gap] = ("scores", "")
TAGS: Final[Gap] = ("tags", "")


class Condition(Protocol):
    """`holds` is None where it cannot be known, and `gaps` then says for want of what. `findings`: what was compared
    with what, for a condition that holds. `parts`: the conditions that it is made of."""

    @property
    def parts(self) -> tuple["Condition", ...]: ...
    def holds(self, evidence: Evidence) -> bool | None: ...
    def gaps(self, evidence: Evidence) -> Iterator[Gap]: ...
    def findings(self, evidence: Evidence) -> list[Finding]: ...


def leaves(condition: Condition) -> Iterator[Condition]:
    """The conditions that are not made of others."""
    if not condition.parts:
        yield condition
    for part in condition.parts:
        yield from leaves(part)


@dataclass(frozen=True, slots=True)
class All:
    """All of these hold."""

    parts: tuple[Condition, ...]

    def holds(self, evidence: Evidence) -> bool | None:
        unknown = False
        for part in self.parts:
            held = part.holds(evidence)
            if held is False:
                return False
            unknown = unknown or held is None
        return None if unknown else True

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        return _gaps(self.parts, evidence)

    def findings(self, evidence: Evidence) -> list[Finding]:
        return [finding for part in self.parts for finding in part.findings(evidence)]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    parts: tuple[Condition, ...]

    def holds(self, evidence: Evidence) -> bool | None:
        unknown = False
        for part in self.parts:
            held = part.holds(evidence)
            if held:
                return True
            unknown = unknown or held is None
        return None if unknown else False

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        return _gaps(self.parts, evidence)

    def findings(self, evidence: Evidence) -> list[Finding]:
        return [found for part in self.parts if part.holds(evidence) for found in part.findings(evidence)]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    part: Condition

    @property
    def parts(self) -> tuple[Condition, ...]:
        return (self.part,)

    def holds(self, evidence: Evidence) -> bool | None:
        held = self.part.holds(evidence)
        return None if held is None else not held

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        return self.part.gaps(evidence)

    def findings(self, evidence: Evidence) -> list[Finding]:
        return [{"not": True, **finding} for finding in self.part.findings(evidence)]


def _gaps(parts: Iterable[Condition], evidence: Evidence) -> Iterator[Gap]:
    for part in parts:
        if part.holds(evidence) is None:
            yield from part.gaps(evidence)
