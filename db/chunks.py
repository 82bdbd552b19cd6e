"""The queue: claim, extend, release and read chunks. Their end is in `db.recording`, their rescue in `db.rescue`.

Every time is the database's `now()`; a worker's clock decides nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import claims
from db.policy_evidence import FACT_COLUMNS, facts

URGENT_CHUNK = 64
"""Items of a chunk of the interactive lane at most: what another one may have to wait for."""

# SQL for a job row `j`: the turn at which its first new chunk starts, the lowest that its account's lane waits at.
TURN_NOW = """
      coalesce((SELECT min(c.turn) FROM chunks c WHERE c.state = 'ready' AND c.stage = 'ingest'
        AND c.account_id = j.account_id AND c.urgent = (j.lane = 'interactive')), 0)"""


@dataclass(frozen=True)
class Chunk:
    """A leased chunk, with what its job pinned. `fence` counts claims: who holds an older one writes nothing.

    `account`: its name. `waited_s`: in the interactive lane, how long ago the job was submitted; in the bulk lane, and
    of a retry, how long ago the chunk came to be.
    """

    id: int
    account_id: int
    job_id: UUID
    bucket: int
    round: int
    stage: str
    lo: int
    hi: int
    seqs: tuple[int, ...] | None
    owner: UUID
    fence: int
    attempts: int
    deferrals: int
    lane: str
    analyses: tuple[str, ...]
    options: dict[str, Any]
    models: dict[str, str | None]
    policy: dict[str, Any]
    followers: int
    context: str
    account: str
    waited_s: float

    @property
    def members(self) -> Sequence[int]:
        """The sequence numbers that the chunk names; in a range of the ingest stage, repeated pictures
        (`items.same_as`) are among them and are skipped by `items`."""
        return self.seqs if self.seqs is not None else range(self.lo, self.hi)


@dataclass(frozen=True, slots=True)
class ChunkItem:
    """A member to ingest: a URL to fetch, or the raw bytes of an upload."""

    seq: int
    url: str | None
    raw_key: str | None


@dataclass(frozen=True, slots=True)
class ChunkImage:
    """A member to infer: its image's bytes (SHA-256 of the original) and working copy; for the policy its content
    `facts` and the `category` that its owner declares."""

    seq: int
    sha256: bytes
    work_key: str
    work_sha256: bytes | None
    facts: Mapping[str, Any]
    category: str | None


def claim(
    session: Session,
    stage: str,
    owner: UUID,
    lease_s: float,
    limit: int = 1,
    hint: int | None = None,
    *,
    urgent: bool = False,
    but_not: Collection[int] = (),
) -> list[Chunk]:
    """ready → leased, at most `limit`; the job's first claim moves it accepted → running.

    Order, and nowhere else: the hinted chunk if it is still ready; then the account with the fewest leases for its
    weight, of equals the one not served for longest; within an account the interactive lane before the bulk lane, and
    jobs of a lane in turns. Accounts come before lanes, so that nobody gets more by calling everything interactive.
    `urgent`: only of the interactive lane, and of none of the accounts `but_not`; for the places kept for that lane.
    """
    parameters: dict[str, Any] = {"stage": stage, "owner": owner, "lease_s": lease_s}
    claimed: list[Chunk] = []
    if hint is not None:
        claimed = list(_chunks(session.execute(claims.CLAIM_HINTED, {**parameters, "hint": hint})))
    if len(claimed) < limit:
        more = {**parameters, "limit": limit - len(claimed)}
        if urgent:
            more["but_not"] = list(but_not)
        claimed += _chunks(session.execute(claims.CLAIM_URGENT if urgent else claims.CLAIM, more))
    if claimed:
        session.execute(claims.STARTED, {"ids": list({chunk.job_id for chunk in claimed})})
        session.execute(claims.SERVED, {"ids": list({chunk.account_id for chunk in claimed})})
    return claimed


def claim_late(session: Session, owner: UUID, lease_s: float, limit: int) -> list[Chunk]:
    """ready → leased, at most `limit` infer chunks that waited longer than their policy allows (`late_after_s`) and of
    which nothing is asked but verdicts: whoever claims them can decide without any model. Uploads first, then the
    oldest. A chunk that is leased, or that another claim has locked, is not touched."""
    claimed = list(_chunks(session.execute(claims.CLAIM_LATE, {"owner": owner, "lease_s": lease_s, "limit": limit})))
    if claimed:
        session.execute(claims.STARTED, {"ids": list({chunk.job_id for chunk in claimed})})
    return claimed


def any_ready(session: Session, stage: str) -> bool:
    """Whether anything waits: a tenth of what a claim costs, for who mostly finds nothing."""
    return bool(session.scalar(claims.ANY_READY, {"stage": stage}))


def urgent_ready(session: Session, stage: str) -> bool:
    """Whether anything of the interactive lane waits: so cheap that it can be asked many times a second."""
    return bool(session.scalar(claims.URGENT_READY, {"stage": stage}))


def leased(session: Session, chunk_id: int) -> Chunk:
    """A leased chunk as its owner holds it, for the reaper to end it in the owner's name."""
    return next(_chunks(session.execute(claims.LEASED, {"id": chunk_id})))


def extend(session: Session, chunk: Chunk, progress: int, lease_s: float) -> bool:
    """Renew the lease and note progress (items of the chunk worked on); False when it is no longer ours: stop."""
    parameters = {**_ours(chunk), "progress": progress, "lease_s": lease_s}
    return session.execute(_EXTEND, parameters).first() is not None


def release(session: Session, chunk: Chunk, *, delay_s: float = 0.0) -> bool:
    """leased → ready by its owner, at a graceful stop or when it could not start: the attempt is given back."""
    return session.execute(_RELEASE, {**_ours(chunk), "delay_s": delay_s}).first() is not None


def items(session: Session, chunk: Chunk) -> list[ChunkItem]:
    """What an ingest chunk is to fetch, in order; repeated pictures of a range follow their first and are not here."""
    query = _ITEMS_OF_RANGE if chunk.seqs is None else _ITEMS_OF_SEQS
    return [ChunkItem(*row) for row in session.execute(query, _member_parameters(chunk))]


def images_of(session: Session, chunk: Chunk) -> list[ChunkImage]:
    """The images of an infer chunk's members, in order."""
    rows = session.execute(_IMAGES, {**_member_parameters(chunk), "account_id": chunk.account_id})
    return [
        ChunkImage(
            seq=row.seq,
            sha256=bytes(row.sha256),
            work_key=row.work_key,
            work_sha256=None if row.work_sha256 is None else bytes(row.work_sha256),
            facts=facts(**{name: getattr(row, name) for name in FACT_COLUMNS}),
            category=row.category,
        )
        for row in rows
    ]


def hints(session: Session, window: int, resend_s: float = 30.0) -> list[int]:
    """Ready infer chunks to hint at, at most `window`, marked as hinted; a hint is repeated after `resend_s`."""
    return list(session.scalars(_HINTS, {"window": window, "resend_s": resend_s}))


def _ours(chunk: Chunk) -> dict[str, Any]:
    return {"id": chunk.id, "owner": chunk.owner, "fence": chunk.fence}


def _member_parameters(chunk: Chunk) -> dict[str, Any]:
    return {
        "bucket": chunk.bucket,
        "job_id": chunk.job_id,
        "lo": chunk.lo,
        "hi": chunk.hi,
        "seqs": None if chunk.seqs is None else list(chunk.seqs),
    }


def _chunks(rows: Any) -> Iterator[Chunk]:
    for row in rows.mappings():
        values = dict(row)
        values["seqs"] = None if values["seqs"] is None else tuple(values["seqs"])
        values["analyses"] = tuple(values["analyses"])
        yield Chunk(**values)


_EXTEND = text(
    """
    UPDATE chunks SET lease_until = now() + make_interval(secs => :lease_s), progress = :progress
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'leased' RETURNING id
    """
)
_RELEASE = text(
    """
    UPDATE chunks SET state = 'ready', owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0),
      not_before = now() + make_interval(secs => :delay_s), hinted_at = NULL, progress = 0
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'leased' RETURNING id
    """
)
_ITEMS_OF_RANGE = text(
    """
    SELECT seq, url, raw_key FROM items
    WHERE bucket = :bucket AND job_id = :job_id AND seq >= :lo AND seq < :hi AND same_as IS NULL
      AND num_nonnulls(url, raw_key) = 1 ORDER BY seq
    """
)
_ITEMS_OF_SEQS = text(
    """
    SELECT seq, url, raw_key FROM items
    WHERE bucket = :bucket AND job_id = :job_id AND seq = ANY(:seqs) AND num_nonnulls(url, raw_key) = 1 ORDER BY seq
    """
)
# Erased items have neither URL nor upload: they are in no chunk any more.
# The category is asked for row by row: of a new job Postgres has no statistics, takes it for one row, and would join
# each picture with all items of the job.
_IMAGES = text(
    """
    SELECT g.seq, g.sha256, i.work_key, i.work_sha256, i.width, i.height, i.bytes, i.format, i.sharpness,
      i.pdq_quality, (SELECT t.category FROM items t
        WHERE t.bucket = :bucket AND t.job_id = :job_id AND t.seq = g.seq) AS category
    FROM ingests g JOIN images i ON i.account_id = :account_id AND i.sha256 = g.sha256
    WHERE g.bucket = :bucket AND g.job_id = :job_id AND g.outcome = 'done'
      AND g.seq >= :lo AND g.seq < :hi AND (CAST(:seqs AS integer[]) IS NULL OR g.seq = ANY(:seqs))
    ORDER BY g.seq
    """
)
_HINTS = text(
    """
    UPDATE chunks SET hinted_at = now() WHERE id IN (
      SELECT c.id FROM chunks c JOIN jobs j ON j.id = c.job_id
      WHERE c.stage = 'infer' AND c.state = 'ready' AND c.not_before <= now()
        AND j.state IN ('accepted', 'running')
        AND (c.hinted_at IS NULL OR c.hinted_at < now() - make_interval(secs => :resend_s))
      ORDER BY c.id LIMIT :window FOR UPDATE OF c SKIP LOCKED)
    RETURNING id
    """
)
