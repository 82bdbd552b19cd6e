"""The statements of a claim: which ready chunk is next, and what its owner gets to know; `db.chunks` runs them.

Accounts come before lanes, see docs/decisions/0007. The order of claims is here and nowhere else.
"""

from sqlalchemy import text

# An upload waits from its submit on; a chunk of the bulk lane, which queues for hours by design, from when its pictures
# were ready for a model. So does what is retried: the wait before its failure is not counted again.
_WAITED = "extract(epoch FROM now() - CASE WHEN c.urgent AND j.round = 0 THEN j.created_at ELSE c.created_at END)"
_COLUMNS = f"""c.id, c.account_id, c.job_id, c.bucket, c.round, c.stage, c.lo, c.hi, c.seqs, c.owner, c.fence,
      c.attempts, c.deferrals, j.lane, j.analyses, j.options, j.models, j.policy, j.followers, j.context,
      (SELECT a.name FROM accounts a WHERE a.id = c.account_id) AS account,
      {_WAITED}::float8 AS waited_s"""
LEASED = text(f"SELECT {_COLUMNS} FROM chunks c JOIN jobs j ON j.id = c.job_id WHERE c.id = :id")
_LEASE = (
    """
    UPDATE chunks c SET state = 'leased', owner = :owner, fence = c.fence + 1, attempts = c.attempts + 1,
      lease_until = now() + make_interval(secs => :lease_s), progress = 0
    FROM picked p JOIN jobs j ON j.id = p.job_id WHERE c.id = p.id
    RETURNING """
    + _COLUMNS
)
CLAIM_HINTED = text(
    """
    WITH picked AS (
      SELECT c.id, c.job_id FROM chunks c JOIN jobs j ON j.id = c.job_id
      WHERE c.id = :hint AND c.stage = :stage AND c.state = 'ready' AND c.not_before <= now()
        AND j.state IN ('accepted', 'running')
      FOR UPDATE OF c SKIP LOCKED)
    """
    + _LEASE
)
# Accounts with ready chunks are found by jumping through the index, and each brings its next few chunks: what a claim
# costs grows with the accounts that compete, not with jobs or chunks. `rn` lets accounts take turns within one claim;
# the spare entries are for chunks that others have locked.
_ORDER = """
    WITH RECURSIVE competing AS (
      (SELECT account_id FROM chunks WHERE state = 'ready' AND stage = :stage ORDER BY account_id LIMIT 1)
      UNION ALL
      SELECT (SELECT c.account_id FROM chunks c WHERE c.state = 'ready' AND c.stage = :stage
                AND c.account_id > competing.account_id ORDER BY c.account_id LIMIT 1)
      FROM competing WHERE competing.account_id IS NOT NULL
    ), busy AS (
      SELECT account_id, count(*) AS n FROM chunks WHERE state = 'leased' GROUP BY account_id
    ), picked AS (
      SELECT c.id, c.job_id
      FROM competing
      JOIN accounts a ON a.id = competing.account_id
      LEFT JOIN busy b ON b.account_id = a.id
      CROSS JOIN LATERAL (
        SELECT r.id, row_number() OVER (ORDER BY r.urgent DESC, r.turn, r.id) AS rn FROM (
          SELECT k.id, k.urgent, k.turn FROM chunks k JOIN jobs j ON j.id = k.job_id
          WHERE k.stage = :stage AND k.account_id = a.id AND k.state = 'ready' AND k.not_before <= now()
            AND j.state IN ('accepted', 'running') {which}
          ORDER BY k.urgent DESC, k.turn, k.id LIMIT :limit + 16) r
      ) first
      JOIN chunks c ON c.id = first.id
      WHERE c.state = 'ready'
      ORDER BY (coalesce(b.n, 0) + first.rn) / a.weight::float8, a.claimed_at NULLS FIRST, first.rn, c.id
      LIMIT :limit FOR UPDATE OF c SKIP LOCKED)
    """
CLAIM = text(_ORDER.format(which="") + _LEASE)
CLAIM_URGENT = text(_ORDER.format(which="AND k.urgent AND k.account_id <> ALL(:but_not)") + _LEASE)
# What its policy lets wait no longer, and what needs no model then: nothing that has one is asked beside a verdict. A
# chunk that was given back until a model may load (`not_before`) is late all the same. No account pays for it with its
# turn: no device is used. Jobs that are younger than that have no such chunk; of the others each is asked by itself
# (OFFSET 0), so that no plan goes through all that is ready. The spare entries are for chunks that others have locked.
CLAIM_LATE = text(
    f"""
    WITH patient AS MATERIALIZED (
      SELECT j.id, j.round, j.created_at, CAST(j.policy ->> 'late_after_s' AS float8) AS after_s FROM jobs j
      WHERE j.settled_at IS NULL AND j.state IN ('accepted', 'running')
        AND extract(epoch FROM now() - j.created_at) >= CAST(j.policy ->> 'late_after_s' AS float8)
        AND 'moderation' = ANY(j.analyses) AND j.options -> 'rerun' IS NULL
        AND NOT EXISTS (SELECT FROM unnest(j.analyses) AS asked(task)
          WHERE asked.task <> 'moderation' AND j.models ->> asked.task IS NOT NULL)
    ), late AS MATERIALIZED (
      SELECT of_job.id, of_job.urgent FROM patient j CROSS JOIN LATERAL (
        SELECT c.id, c.urgent FROM chunks c
        WHERE c.job_id = j.id AND c.stage = 'infer' AND c.state = 'ready' AND {_WAITED} >= j.after_s OFFSET 0) of_job
      ORDER BY of_job.urgent DESC, of_job.id LIMIT :limit + 16
    ), picked AS (
      SELECT c.id, c.job_id FROM late JOIN chunks c ON c.id = late.id
      WHERE c.state = 'ready' ORDER BY late.urgent DESC, c.id LIMIT :limit FOR UPDATE OF c SKIP LOCKED)
    """
    + _LEASE
)
ANY_READY = text("SELECT EXISTS (SELECT FROM chunks WHERE stage = :stage AND state = 'ready' AND not_before <= now())")
URGENT_READY = text(
    "SELECT EXISTS (SELECT FROM chunks WHERE stage = :stage AND state = 'ready' AND urgent AND not_before <= now())"
)
STARTED = text(
    """
    UPDATE jobs SET state = 'running', started_at = coalesce(started_at, now())
    WHERE id = ANY(:ids) AND state = 'accepted'
    """
)
# Best effort, for the order only: another claim that notes the same account at this moment is not waited for.
SERVED = text(
    """
    UPDATE accounts SET claimed_at = now() WHERE id IN (
      SELECT id FROM accounts WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED)
    """
)
