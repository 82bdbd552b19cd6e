"""The policies that the benches of moderation compare, decided by the engine itself: the default, and its successor."""

import importlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.moderation_photos import CLASSES, Floats
from db import policy, policy_text
from db.policy import Evidence, Policy, Verdict

ROOT = Path(__file__).resolve().parents[1]


def _first() -> Policy:
    """The default policy as the first migration inserts it."""
    sql: str = importlib.import_module("migrations.versions.0001_the_line").DEFAULT_POLICY
    return policy.validate(json.loads(sql[sql.index("{") : sql.rindex("}") + 1]))


POLICIES: dict[str, Policy] = {
    "v1": _first(),
    "v2": policy_text.read((ROOT / "docs" / "policies" / "default-2.yaml").read_text(encoding="utf-8")).policy,
}


def decided(name: str, scores: Floats) -> list[Verdict]:
    """The verdict with its reasons for every row of scores N×classes."""
    rows = (dict(zip(CLASSES, row, strict=True)) for row in scores.tolist())
    return [policy.decide(POLICIES[name], Evidence(row)) for row in rows]


def verdicts(name: str, scores: Floats) -> npt.NDArray[np.str_]:
    """approve, review or reject for every row of scores N×classes."""
    return np.array([each.verdict for each in decided(name, scores)], "U7")
