"""What a shadow run found, as one JSON-ready document: agreement, flips, rates, scores, verdicts, cost, examples.

It reads rows and computes; how it looks in a terminal is `worker.shadow_page`.
"""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from db import policy, policy_assignments, registry, shadow, shadow_sample
from db.errors import NotFound
from db.ids import item_id
from db.learning_tables import ShadowRun
from db.session import Database
from db.shadow_sample import Recorded
from ml.card import ModelCard, from_dict
from ml.disagreement import Agreement, Pair, agreement, only

if TYPE_CHECKING:
    from db.policy import Policy

EXAMPLES = 20


def document(database: Database, ref: str, *, top_k: int, min_score: float) -> dict[str, Any]:
    """The newest run of a model. `top_k` and `min_score` are those by which the line gives tags. Raises NotFound."""
    with database.transaction() as session:
        run = shadow.latest(session, ref)
        if run is None:
            raise NotFound(f"{ref} has had no shadow run. Start one: tagmill shadow start {ref}")
        cards = [from_dict(registry.by_ref(session, each).card) for each in (run.against, run.model)]
        found = policy_assignments.deciding(session, None)
        rules = policy.validate(found.document if found else policy.NO_POLICY)
    rows, pair, failed = _read(database, run, *cards)
    return {
        "run": facts(run),
        "compared": len(rows),
        "failed": [
            {"side": side, "code": code, "pictures": count} for (side, code), count in sorted(failed.items())
        ],
        "agreement": [_agreement(each) for each in pair.agreements()],
        "verdicts": _verdicts(run.task, rows, pair, rules),
        "rates": [asdict(rate) for rate in pair.rates(top_k=top_k, min_score=min_score)] if run.task == "tags" else [],
        "scores": [asdict(shift) for shift in pair.shifts()],
        "only_active": [{"group": group, "label": label} for group, label in only(cards[0], cards[1])],
        "only_candidate": [{"group": group, "label": label} for group, label in only(cards[1], cards[0])],
        "cost": cost(run),
        "examples": [
            {
                "item": item_id(rows[example.row].job_id, rows[example.row].seq),
                "sha256": rows[example.row].sha256.hex(),
                "group": example.group,
                "distance": example.distance,
                "active": {"label": example.active[0], "score": example.active[1]},
                "candidate": {"label": example.candidate[0], "score": example.candidate[1]},
            }
            for example in pair.examples(EXAMPLES)
        ],
    }  # fmt: skip


def facts(run: ShadowRun) -> dict[str, Any]:
    """The row of a run, without its lease."""
    times = {name: getattr(run, name) for name in ("until", "created_at", "worked_at", "ended_at")}
    return {
        "id": str(run.id),
        "task": run.task,
        "model": run.model,
        "against": run.against,
        "state": run.state,
        "reason": run.reason,
        "code": run.code,
        "detail": run.detail,
        "share": run.share,
        "pictures": run.pictures,
        **{name: None if when is None else when.isoformat() for name, when in times.items()},
    }


def cost(run: ShadowRun) -> dict[str, float] | None:
    """Milliseconds an image of each model, decoding its working copy included; None before the first one."""
    scored = run.compared + run.failed
    if not scored:
        return None
    return {"active_ms": 1000 * run.active_s / scored, "candidate_ms": 1000 * run.candidate_s / scored}


def _read(
    database: Database, run: ShadowRun, active: ModelCard, candidate: ModelCard
) -> tuple[list[Recorded], Pair, Counter[tuple[str, str]]]:
    """The pictures that both scored, their scores as a pair, and the others by (side, code)."""
    rows: list[Recorded] = []
    ours: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    theirs: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    failed: Counter[tuple[str, str]] = Counter()
    after = (0, b"")
    while True:
        with database.transaction() as session:
            page = shadow_sample.recorded(session, run.id, after)
        if not page:
            break
        after = (page[-1].account_id, page[-1].sha256)
        failed.update((row.side or "", row.code) for row in page if row.code is not None)
        scored = [row for row in page if row.code is None]
        # As lists of Python floats a thousand labels of ten thousand pictures would be half a gigabyte.
        ours.append(np.array([row.active for row in scored], np.float32).reshape(-1, len(active.labels)))
        theirs.append(np.array([row.candidate for row in scored], np.float32).reshape(-1, len(candidate.labels)))
        for row in scored:
            row.active = row.candidate = None
        rows += scored
    empty = [np.zeros((0, len(card.labels)), np.float32) for card in (active, candidate)]
    return rows, Pair(active, candidate, np.concatenate([empty[0], *ours]), np.concatenate([empty[1], *theirs])), failed


def _agreement(found: Agreement) -> dict[str, Any]:
    row = {**asdict(found), "share": found.share}
    if not found.pictures:
        row |= {"share": None, "low": None, "high": None}
    row["flips"] = [{"active": ours, "candidate": theirs, "pictures": count} for ours, theirs, count in found.flips]
    return row


def _verdicts(task: str, rows: list[Recorded], pair: Pair, rules: "Policy") -> dict[str, Any] | None:
    """What the policy that is active now makes of both; None for taggers."""
    if task != "moderation":
        return None
    sides = [
        [policy.decide(rules, policy.Evidence(dict(zip(names, row.tolist(), strict=True)))).verdict for row in scores]
        for names, scores in (
            ([label.name for label in pair.active.labels], pair.of_active),
            ([label.name for label in pair.candidate.labels], pair.of_candidate),
        )
    ]
    return {"policy": rules.ref, **_agreement(agreement("verdict", *sides))}
