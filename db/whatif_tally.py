"""What a replay comes to: verdicts before and after, flips by rule, load of review by day, samples. Pure counting."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from db.ids import item_id
from db.policy import Verdict
from db.policy_document import OWN_CODES
from db.states import VERDICTS
from db.whatif import Stored

SAMPLES: Final = 24
"""Items shown of each kind of flip."""
NO_RULE: Final = ""
"""Stands for a verdict that no rule gave: none held, or something could not be known."""


class Tally:
    """Counts results one by one; `document` may be asked for at any time.

    Samples are the pictures with the lowest hash of their SHA-256: the same ones in every replay of the same window,
    and nobody can choose to be among them.
    """

    def __init__(self) -> None:
        self.analyses = 0
        self.changed = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._rules: Counter[tuple[str, str]] = Counter()
        self._flips: Counter[tuple[str, str, str, str, str]] = Counter()
        self._days: Counter[tuple[str, str, str]] = Counter()
        self._people: Counter[tuple[str, bool, bool]] = Counter()
        self._samples: dict[tuple[str, str], list[tuple[int, str]]] = {}

    def add(self, stored: Stored, verdict: Verdict) -> bool:
        """Count a result; whether its verdict changes. A picture that a person decided keeps that: it is counted
        under `people` only."""
        before, after = stored.verdict, verdict.verdict
        if stored.person is not None:
            self._people[stored.person, before == stored.person, after == stored.person] += 1
            return False
        self.analyses += 1
        self._pairs[before, after] += 1
        self._days[stored.day, before, after] += 1
        self._rules[verdict.rule or NO_RULE, after] += 1
        if before == after:
            return False
        self.changed += 1
        self._flips[before, after, verdict.rule or NO_RULE, _why(verdict), stored.rule or NO_RULE] += 1
        self._keep(stored, before, after)
        return True

    def document(self) -> dict[str, Any]:
        """JSON-ready; lists are sorted, the most first."""
        return {
            "analyses": self.analyses,
            "changed": self.changed,
            "before": self._verdicts(0),
            "after": self._verdicts(1),
            "flips": [self._flip(*pair) for pair in self._by_count()],
            "rules": [
                {"rule": rule or None, "verdict": verdict, "count": count}
                for (rule, verdict), count in _most(self._rules)
            ],
            "days": self._by_day(),
            "people": self._agreement(),
        }

    def _keep(self, stored: Stored, before: str, after: str) -> None:
        rank = int.from_bytes(hashlib.sha256(stored.sha256).digest()[:8], "big")
        kept = self._samples.setdefault((before, after), [])
        entry = (-rank, f"{stored.job_id} {stored.seq}")
        if len(kept) < SAMPLES:
            heapq.heappush(kept, entry)
        elif entry > kept[0]:
            heapq.heapreplace(kept, entry)

    def _verdicts(self, side: int) -> dict[str, int]:
        return {
            verdict: sum(count for pair, count in self._pairs.items() if pair[side] == verdict) for verdict in VERDICTS
        }

    def _by_count(self) -> list[tuple[str, str]]:
        changed = Counter({pair: count for pair, count in self._pairs.items() if pair[0] != pair[1]})
        return [pair for pair, _ in _most(changed)]

    def _flip(self, before: str, after: str) -> dict[str, Any]:
        rules = Counter({key[2:]: count for key, count in self._flips.items() if key[:2] == (before, after)})
        kept = sorted(self._samples.get((before, after), ()), reverse=True)
        places = (place.split() for _, place in kept)
        return {
            "before": before,
            "after": after,
            "count": self._pairs[before, after],
            "rules": [
                {"rule": now or None, "reason": why or None, "was": was or None, "count": count}
                for (now, why, was), count in _most(rules)
            ],
            "samples": [item_id(UUID(job), int(seq)) for job, seq in places],
        }

    def _by_day(self) -> list[dict[str, Any]]:
        days: dict[str, dict[str, Any]] = {}
        for (day, before, after), count in sorted(self._days.items()):
            entry = days.setdefault(day, {"day": day, "analyses": 0, "before": _zero(), "after": _zero()})
            entry["analyses"] += count
            entry["before"][before] += count
            entry["after"][after] += count
        return list(days.values())

    def _agreement(self) -> dict[str, Any]:
        """How often the standing verdicts and the replayed ones are what people decided on the same pictures."""
        decided = self._people.total()
        return {
            "decided": decided,
            "before_agrees": sum(count for (_, before, _), count in self._people.items() if before),
            "after_agrees": sum(count for (_, _, after), count in self._people.items() if after),
        }


def _why(verdict: Verdict) -> str:
    """The engine's own reason where no rule decided, as `class_not_scored`."""
    if verdict.rule is not None:
        return ""
    return next((reason["code"] for reason in verdict.reasons if reason["code"] in OWN_CODES), "")


def _zero() -> dict[str, int]:
    return dict.fromkeys(VERDICTS, 0)


def _most(counts: "Mapping[Any, int]") -> list[tuple[Any, int]]:
    """By count, the highest first; equal ones in the order of their names."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
