"""What-if: a policy replayed over what is stored of a window of results, without any network. Reads only.

    window, newest day first → evidence of each result (scores, tags, facts, hits, context, category) → `policy.decide`
    → counted beside the verdict that stands

The verdicts are those of the line: the same evidence and the same engine. What counts them is `db.whatif_tally`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import bank_doubt, banks
from db.errors import BadSelection
from db.policy_evidence import Evidence, Hit, facts
from db.session import driver_connection

SLICE: Final = timedelta(days=1)
MAX_WINDOW: Final = timedelta(days=400)
Slice = tuple[datetime, datetime]


@dataclass(frozen=True)
class Window:
    """Results written from `since` on and before `until`, of all accounts or of one; only those of a context, of a
    job, or that a policy of this name decided."""

    since: datetime
    until: datetime
    context: str | None = None
    job: UUID | None = None
    policy: str | None = None

    def check(self) -> None:
        """Raises BadSelection for a window that ends before it begins, or that is longer than 400 days."""
        if self.since.tzinfo is None or self.until.tzinfo is None:
            raise BadSelection("The times of a window need a zone.")
        if not self.since < self.until:
            raise BadSelection("A window begins before it ends.")
        if self.until - self.since > MAX_WINDOW:
            raise BadSelection(f"A window is at most {MAX_WINDOW.days} days long.")

    def document(self) -> dict[str, Any]:
        """JSON-ready, with what is set."""
        plain = {key: value if key in ("context", "policy") else str(value) for key, value in asdict(self).items()}
        times = {"since": self.since.isoformat(), "until": self.until.isoformat()}
        return {key: value for key, value in (plain | times).items() if getattr(self, key) is not None}

    def slices(self) -> Iterator[Slice]:
        """The window in days (UTC), newest first: no statement holds a snapshot for longer than a day's rows take."""
        end = self.until
        while end > self.since:
            midnight = end.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            begin = max(self.since, midnight if midnight < end else midnight - SLICE)
            yield begin, end
            end = begin


@dataclass(frozen=True, slots=True)
class Stored:
    """A result as it stands, and what is known of its picture. `rule`, `policy` ("name@version"): what decided;
    `person`: what a person decided on the picture in this context; `suspended`: hits of entries that went into
    quarantine within an hour."""

    account_id: int
    bucket: int
    job_id: str
    seq: int
    sha256: bytes
    day: str
    context: str
    verdict: str
    rule: str | None
    policy: str
    person: str | None
    evidence: Evidence
    suspended: Sequence[Hit]


@dataclass(frozen=True)
class Known:
    """What is read once for all slices: accounts' names by id, the pictures that hash banks know, and the hits of the
    hour before an entry went into quarantine."""

    names: Mapping[int, str]
    hits: Mapping[tuple[int, bytes], Sequence[Hit]]
    suspended: Mapping[tuple[int, bytes], Sequence[Hit]]


def known(session: Session, account_id: int | None = None) -> Known:
    """What a replay of one account, or of all, needs besides the results."""
    names: dict[int, str] = {row.id: row.name for row in session.execute(_NAMES, {"account": account_id})}
    hits: dict[tuple[int, bytes], Sequence[Hit]] = {}
    suspended: dict[tuple[int, bytes], Sequence[Hit]] = {}
    for id_ in names:
        shas = [bytes(sha) for sha in session.scalars(_HIT, {"account": id_})]
        hits |= {(id_, sha): found for sha, found in banks.hits_of(session, id_, shas).items()}
        suspended |= {(id_, sha): found for sha, found in bank_doubt.suspended(session, id_, shas).items()}
    return Known(names, hits, suspended)


def stored(
    session: Session, window: Window, part: Slice, known: Known, *, account_id: int | None = None, tags: bool = True
) -> Iterator[Stored]:
    """The results of a slice that have a verdict; `tags`: with the tagger's, for policies that read them.

    Streams: the transaction must stay open meanwhile, and cannot be used for anything else.
    """
    parameters = {
        "since": part[0],
        "until": part[1],
        "account": account_id,
        "context": window.context,
        "job": window.job,
        "policy": window.policy,
    }
    query = _ROWS.format(tags=_TAGS if tags else "NULL")
    with driver_connection(session).cursor() as cursor, cursor.copy(query, parameters) as copied:
        for row in copied.rows():
            yield _stored(row, known)


def _stored(row: Sequence[Any], known: Known) -> Stored:
    account = int(row[0])
    sha256 = bytes.fromhex(row[4])
    scores = json.loads(row[11]) if row[11] is not None else None
    width = row[14]
    return Stored(
        account_id=account,
        bucket=int(row[1]),
        job_id=row[2],
        seq=int(row[3]),
        sha256=sha256,
        day=row[5],
        context=row[6],
        verdict=row[8],
        rule=row[9],
        policy=row[10] or "",
        person=row[20],
        evidence=Evidence(
            scores=scores or None,
            tags=None if row[12] is None else json.loads(row[12])["tags"],
            facts={}
            if width is None
            else facts(
                width=int(width),
                height=int(row[15]),
                bytes=int(row[16]),
                format=row[17],
                sharpness=None if row[18] is None else float(row[18]),
                pdq_quality=None if row[19] is None else int(row[19]),
            ),
            hits=known.hits.get((account, sha256), ()),
            context=row[6],
            account=known.names.get(account, ""),
            category=row[7],
            late=row[13] == "t",
        ),
        suspended=known.suspended.get((account, sha256), ()),
    )


_NAMES = text("SELECT id, name FROM accounts WHERE CAST(:account AS bigint) IS NULL OR id = :account ORDER BY id")
_HIT = text("SELECT DISTINCT sha256 FROM hash_hits WHERE account_id = :account")
# For psycopg, as COPY: its placeholders are %(name)s.
_TAGS = """
      (SELECT a.scores FROM analyses a WHERE a.account_id = r.account_id AND a.sha256 = r.sha256
        AND a.model = coalesce(r.published -> 'tags' ->> 'model', j.models ->> 'tags'))"""
_ROWS = """
    COPY (SELECT r.account_id, r.bucket, r.job_id, r.seq, encode(r.sha256, 'hex'),
      to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), j.context, i.category, r.moderation ->> 'verdict',
      r.moderation ->> 'rule', r.moderation ->> 'policy', r.moderation ->> 'scores', {tags},
      r.moderation -> 'reasons' @> '[{{"code": "moderation_late"}}]', g.width, g.height, g.bytes, g.format, g.sharpness,
      g.pdq_quality, h.verdict
    FROM results r
    JOIN jobs j ON j.id = r.job_id
    JOIN items i ON i.bucket = r.bucket AND i.job_id = r.job_id AND i.seq = r.seq
    LEFT JOIN images g ON g.account_id = r.account_id AND g.sha256 = r.sha256
    LEFT JOIN human_decisions h ON h.account_id = r.account_id AND h.sha256 = r.sha256 AND h.context = j.context
    WHERE r.outcome = 'done' AND r.moderation IS NOT NULL AND r.created_at >= %(since)s AND r.created_at < %(until)s
      AND (%(account)s::bigint IS NULL OR r.account_id = %(account)s)
      AND (%(context)s::text IS NULL OR j.context = %(context)s)
      AND (%(job)s::uuid IS NULL OR r.job_id = %(job)s)
      AND (%(policy)s::text IS NULL OR starts_with(r.moderation ->> 'policy', %(policy)s || '@'))
      AND NOT EXISTS (SELECT 1 FROM reruns x WHERE x.job_id = r.job_id)
    ) TO STDOUT"""
