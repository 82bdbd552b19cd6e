"""Chooses pictures for people to label and writes them as a table that `tagmill labels import` reads back."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from db import labels, registry, suggestions
from db.errors import BadSelection, NotFound
from db.labels import Group
from db.session import Database
from db.spreadsheets import harmless
from ml import suggest
from ml.suggest import Candidate, Rule, Suggestion

POOL = 20_000  # candidates to choose from: a random sample of all, where there are more
COLUMNS = ("item_id", "sha256", "url", "filename", "model_says", "score", "why")
SAID = 3  # labels of a group that `model_says` repeats


@dataclass(frozen=True)
class Row:
    """A picture to label, and why."""

    picture: suggestions.Picture
    says: str
    score: float
    why: str


@dataclass(frozen=True)
class Suggested:
    """`candidates`: unlabelled pictures that it chose from; `cut`: there were more than POOL."""

    model: str
    groups: tuple[str, ...]
    candidates: int
    cut: bool
    rows: list[Row]


def choose(
    database: Database,
    account_id: int,
    model: str | None,
    count: int,
    *,
    since: datetime,
    groups: Sequence[str] = (),
    seed: int = 0,
) -> Suggested:
    """Half of them uncertain, half diverse. Raises NotFound for a model that is not there, BadSelection for a label
    group that it does not have."""
    with database.transaction(account_id) as session:
        version = registry.by_ref(session, model) if model else registry.active(session, "tags")
        if version is None:
            raise NotFound("No model is active for tags: name one with --model.")
        known = labels.vocabulary(session, version.ref)
        if unknown := [group for group in groups if group not in known]:
            there = ", ".join(known) or "none"
            raise BadSelection(f"{version.ref} has no label group {unknown[0]!r}; there is {there}.")
        wanted = tuple(groups or known)
        pictures = suggestions.unlabelled(
            session, account_id, version.ref, wanted, since=since, limit=POOL + 1, seed=seed
        )
        done = suggestions.labelled_hashes(session, account_id, wanted, POOL)
    keys = _keys(version.card)
    rules = {group: _rule(known[group], group, version.card) for group in wanted}
    cut = len(pictures) > POOL
    by_sha = {picture.sha256.hex(): picture for picture in pictures[:POOL]}
    candidates = [Candidate(sha, _scores(picture.scores, keys), picture.pdq) for sha, picture in by_sha.items()]
    found = suggest.suggest(candidates, rules, count, labelled=done, seed=seed)
    rows = [_row(by_sha[each.candidate.sha256], each, rules) for each in found]
    return Suggested(version.ref, wanted, len(candidates), cut, rows)


def write(found: Suggested, out: IO[str]) -> None:
    """A CSV with a header, COLUMNS and an empty column for each label group; no cell is a formula."""
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*COLUMNS, *found.groups])
    for row in found.rows:
        picture = row.picture
        table.writerow(
            [
                picture.item_id,
                picture.sha256.hex(),
                harmless(picture.url or ""),
                harmless(picture.filename or ""),
                harmless(row.says),
                f"{row.score:.3f}",
                row.why,
                *("" for _ in found.groups),
            ]
        )


def save(found: Suggested, path: Path) -> None:
    """Write the table to a file."""
    with path.open("w", encoding="utf-8", newline="") as out:
        write(found, out)


def _row(picture: suggestions.Picture, found: Suggestion, rules: Mapping[str, Rule]) -> Row:
    parts = []
    for group in rules:
        scored = found.candidate.scores.get(group, {})
        best = sorted(scored.items(), key=lambda item: (-item[1], item[0]))[:SAID]
        parts.append(f"{group}: " + (", ".join(f"{label} {score:.2f}" for label, score in best) or "nothing"))
    return Row(picture, "; ".join(parts), found.score, found.why)


def _rule(group: Group, name: str, card: Mapping[str, Any]) -> Rule:
    limits = {
        label["name"]: float(label["threshold"])
        for label in card["labels"]
        if label["group"] == name and label.get("threshold") is not None
    }
    return Rule("exclusive" if group.kind == "exclusive" else "attributes", limits)


def _keys(card: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The names of stored moderation scores → (group, label): as `ml.scores.LabelSet` forms them."""
    names = [label["name"] for label in card["labels"]]
    return {
        (f"{label['group']}:{label['name']}" if names.count(label["name"]) > 1 else label["name"]): (
            label["group"],
            label["name"],
        )
        for label in card["labels"]
    }


def _scores(stored: Mapping[str, Any], keys: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for tag in stored.get("tags", ()):
        found.setdefault(tag["group"], {})[tag["label"]] = tag["score"]
    for key, score in stored.get("scores", {}).items():
        if key in keys:
            group, label = keys[key]
            found.setdefault(group, {})[label] = score
    return found
