"""The conditions of a policy's rules that compare something: scores, bank hits, content facts, tags, names. Pure.

What they are made into with `all`, `any` and `not` is in `db.policy_logic`; documents become conditions in
`db.policy_document`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from db.policy_evidence import Evidence
from db.policy_logic import SCORES, TAGS, Condition, Finding, Gap

BOUNDS: Final = ("at_least", "above", "below", "at_most")


@dataclass(frozen=True, slots=True)
class Band:
    """Where a number must lie; at least one bound is given, and NaN lies nowhere."""

    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def shown(self) -> Finding:
        """`threshold` is the lowest bound, from which on the condition holds, unless `bound` says otherwise."""
        given = [(name, value) for name in BOUNDS if (value := getattr(self, name)) is not None]
        (first, threshold), *rest = given
        named = {} if first == "at_least" else {"bound": first}
        return {"threshold": threshold, **named, **dict(rest)}


class _Leaf:
    """A condition that is not made of others, and is known whatever the models say."""

    __slots__ = ()

    @property
    def parts(self) -> tuple[Condition, ...]:
        return ()

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        yield from ()


@dataclass(frozen=True, slots=True)
class Score(_Leaf):
    """The score of a class, or the sum of several, to six digits as scores are stored."""

    labels: tuple[str, ...]
    band: Band

    def holds(self, evidence: Evidence) -> bool | None:
        value = self._value(evidence)
        return None if value is None else self.band.holds(value)

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        if evidence.scores is None:
            yield SCORES
        else:
            scores = evidence.scores
            yield from (("class", label) for label in self.labels if _number(scores.get(label)) is None)

    def findings(self, evidence: Evidence) -> list[Finding]:
        value = self._value(evidence)
        named = {"class": self.labels[0]} if len(self.labels) == 1 else {"classes": list(self.labels)}
        return [{**named, "score": None if value is None else round(value, 5), **self.band.shown()}]

    def _value(self, evidence: Evidence) -> float | None:
        scores = evidence.scores
        if scores is None:
            return None
        if len(self.labels) == 1:
            return _number(scores.get(self.labels[0]))
        values = [_number(scores.get(label)) for label in self.labels]
        return None if None in values else round(sum(value for value in values if value is not None), 6)


@dataclass(frozen=True, slots=True)
class BankHit(_Leaf):
    """A hash bank knows the picture: any bank, one by name, or one of a kind; within so many differing bits."""

    bank: str | None = None
    kind: str | None = None
    within: int | None = None

    def holds(self, evidence: Evidence) -> bool | None:
        return bool(self.findings(evidence)) if evidence.hits else False

    def findings(self, evidence: Evidence) -> list[Finding]:
        """The nearest hit."""
        hits = [
            hit
            for hit in evidence.hits
            if (self.bank is None or hit.bank == self.bank)
            and (self.kind is None or hit.kind == self.kind)
            and (self.within is None or hit.distance <= self.within)
        ]
        if not hits:
            return []
        hit = min(hits, key=lambda hit: hit.distance)
        shown = {"bank": hit.bank, "kind": hit.kind, "entry": str(hit.entry), "distance": hit.distance}
        return [shown if hit.reason is None else {**shown, "bank_reason": hit.reason}]


@dataclass(frozen=True, slots=True)
class Fact(_Leaf):
    """A content fact that is a number."""

    fact: str
    band: Band

    def holds(self, evidence: Evidence) -> bool | None:
        value = _number(evidence.facts.get(self.fact))
        return None if value is None else self.band.holds(value)

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        if _number(evidence.facts.get(self.fact)) is None:
            yield ("fact", self.fact)

    def findings(self, evidence: Evidence) -> list[Finding]:
        value = evidence.facts.get(self.fact)
        rounded = round(value, 5) if isinstance(value, float) else value
        return [{"fact": self.fact, "value": rounded, **self.band.shown()}]


@dataclass(frozen=True, slots=True)
class FactWord(_Leaf):
    """A content fact that is a word (format), one of some."""

    fact: str
    words: frozenset[str]

    def holds(self, evidence: Evidence) -> bool | None:
        value = evidence.facts.get(self.fact)
        return None if value is None else value in self.words

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        if evidence.facts.get(self.fact) is None:
            yield ("fact", self.fact)

    def findings(self, evidence: Evidence) -> list[Finding]:
        return [{"fact": self.fact, "value": evidence.facts.get(self.fact)}]


@dataclass(frozen=True, slots=True)
class Tag(_Leaf):
    """The tagger gave a label (of a group) such a score; a label that it did not give has none."""

    label: str
    group: str | None
    band: Band

    def holds(self, evidence: Evidence) -> bool | None:
        if evidence.tags is None:
            return None
        return any(self.band.holds(tag["score"]) for tag in self._found(evidence))

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        if evidence.tags is None:
            yield TAGS

    def findings(self, evidence: Evidence) -> list[Finding]:
        found = max(self._found(evidence), key=lambda tag: tag["score"], default=None)
        named = {"tag": self.label} if self.group is None else {"tag": self.label, "group": self.group}
        return [{**named, "score": None if found is None else round(found["score"], 5), **self.band.shown()}]

    def _found(self, evidence: Evidence) -> list[Any]:
        return [
            tag
            for tag in evidence.tags or ()
            if tag["label"] == self.label and (self.group is None or tag["group"] == self.group)
        ]


@dataclass(frozen=True, slots=True)
class CategoryMismatch(_Leaf):
    """A category is declared and is not among the tags (of a group) of at least this score."""

    at_least: float
    group: str | None = None

    def holds(self, evidence: Evidence) -> bool | None:
        if evidence.category is None:
            return False
        if evidence.tags is None:
            return None
        return not any(
            tag["label"] == evidence.category
            and tag["score"] >= self.at_least
            and (self.group is None or tag["group"] == self.group)
            for tag in evidence.tags
        )

    def gaps(self, evidence: Evidence) -> Iterator[Gap]:
        if evidence.category is not None and evidence.tags is None:
            yield TAGS

    def findings(self, evidence: Evidence) -> list[Finding]:
        score = max((tag["score"] for tag in evidence.tags or () if tag["label"] == evidence.category), default=None)
        shown = None if score is None else round(score, 5)
        return [{"category": evidence.category, "score": shown, "threshold": self.at_least}]


@dataclass(frozen=True, slots=True)
class Named(_Leaf):
    """The account, the context or the declared category is one of these."""

    of: str
    names: frozenset[str]

    def holds(self, evidence: Evidence) -> bool | None:
        return getattr(evidence, self.of) in self.names

    def findings(self, evidence: Evidence) -> list[Finding]:
        return [{self.of: getattr(evidence, self.of)}]


def _number(value: Any) -> float | None:
    """The value, unless it is none: NaN is no score."""
    return None if value is None or value != value else value
