"""The doctor's look at drift: what the newest computed day says of the active models; computes nothing."""

from collections.abc import Iterator

from db import drift, registry
from worker.findings import Finding
from worker.local import Place


def drifted(where: Place) -> Iterator[Finding]:
    """One finding; none before a day was computed. Sources of models that are not active any more do not count."""
    with where.database() as at, at.transaction() as session:
        newest = drift.newest_day(session)
        if newest is None:
            return
        found = [registry.active(session, task) for task in ("tags", "moderation")]
        active = {model.ref for model in found if model is not None}
        levels = drift.levels(session, newest.day)
    sums = dict.fromkeys(("drifted", "watch", "ok", "unknown"), 0)
    for (ref, level), sources in levels.items():
        sums[level] += sources if ref in active else 0
    words = ", ".join(f"{count} {level}" for level, count in sums.items() if count) or "no pictures of active models"
    said = f"{newest.day}: {words}"
    if sums["drifted"]:
        yield Finding(
            "drift", "warning", said, "tagmill drift; then label some of what it shows: tagmill datasets suggest"
        )
    else:
        yield Finding("drift", "good", said)
