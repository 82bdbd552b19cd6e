"""Policies and their rules as the engine sees them, and what is wrong with a document that is none. Data only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from db.errors import DbError
from db.policy_conditions import CategoryMismatch, Score, Tag
from db.policy_logic import Condition, leaves

MODES: Final = ("first_match", "most_severe")
FAIL_OPEN: Final = "fail_open"
FAIL_CLOSED: Final = "fail_closed"
FALLBACKS: Final = (FAIL_OPEN, FAIL_CLOSED, "review")


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One thing that is wrong: where (a field path as `rules[2].when.score`), what, and the place in the text."""

    field: str
    detail: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}, column {self.column}: "
        return f"{where}{self.field + ': ' if self.field else ''}{self.detail}"


class PolicyError(DbError, ValueError):
    """The document is not a policy; `faults` says where and why, `field` and `line` are the first one's."""

    code = "invalid_policy"

    def __init__(self, faults: Sequence[PolicyFault]) -> None:
        super().__init__("; ".join(map(str, faults[:10])))
        self.faults = tuple(faults)
        self.field = faults[0].field
        self.line = faults[0].line


@dataclass(frozen=True, slots=True)
class Rule:
    """When the condition holds, `then` is the verdict; `code` and `text` are for the person whose picture it is."""

    id: str
    when: Condition
    then: str
    code: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class RejectReason:
    """For what people reject pictures; `text` is for the person whose picture it is."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Policy:
    """`rules` in order and how they are weighed (`mode`), `otherwise` for when none holds. `on_missing`: what to do
    without the model that a rule needs; `on_late`: without waiting any longer than `late_after_s`. `audit_share`: of
    how many automatic verdicts people see a sample. `reject_reasons`: what people choose from when they reject."""

    name: str
    version: int
    rules: tuple[Rule, ...]
    mode: str = "most_severe"
    otherwise: str = "approve"
    on_missing: str = "review"
    on_late: str | None = None
    late_after_s: float | None = None
    audit_share: float = 0.0
    description: str = ""
    reject_reasons: tuple[RejectReason, ...] = ()

    @property
    def offered(self) -> dict[str, str]:
        """What reviewers may choose from when they reject: texts by code, the policy's reasons for people before those
        of its rules that reject. Rules that only ask for people give none: their texts say that somebody will look."""
        found = {reason.code: reason.text for reason in self.reject_reasons}
        for rule in self.rules:
            if rule.then == "reject":
                found.setdefault(rule.code, rule.text)
        return found

    @property
    def ref(self) -> str:
        """How results name it."""
        return f"{self.name}@{self.version}"

    @property
    def first_match(self) -> bool:
        return self.mode == "first_match"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes whose scores it reads, in order."""
        found = (leaf for rule in self.rules for leaf in leaves(rule.when) if isinstance(leaf, Score))
        return tuple(dict.fromkeys(label for leaf in found for label in leaf.labels))

    @property
    def reads_tags(self) -> bool:
        """Whether a rule needs the tagger."""
        return any(isinstance(leaf, Tag | CategoryMismatch) for rule in self.rules for leaf in leaves(rule.when))

    def tasks(self, analyses: Sequence[str]) -> list[str]:
        """The analyses whose models are needed for these: with moderation, the tags that rules read."""
        needs_tags = self.reads_tags and "moderation" in analyses and "tags" not in analyses
        return [*analyses, "tags"] if needs_tags else list(analyses)
