"""Evidence: the hash chain over the audit log, digests of decisions, appeals, and the verdict that counts.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

# An entry waits in `audit_unsealed` from its own transaction on until it has its place in the chain. Not by ids: those
# are given before the commit, and an entry that commits late must not be skipped.
CHAIN = """
CREATE TABLE audit_unsealed (entry_id bigint PRIMARY KEY);
CREATE TABLE audit_seals (
  seq bigint PRIMARY KEY CHECK (seq > 0),
  entry_id bigint NOT NULL UNIQUE,
  prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  sealed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO audit_unsealed SELECT id FROM audit_log;
CREATE INDEX audit_log_account ON audit_log (account_id, id DESC);
CREATE INDEX audit_log_batch ON audit_log (subject) WHERE action = 'decisions.record';
"""

# What the API needs to recompute the chain of the whole installation: digests of entries, never the entries, which
# may be another account's. `stray`: an entry that has no seal and waits for none.
CHAIN_FUNCTIONS = """
CREATE FUNCTION tagmill_audit_links(after bigint, count integer)
RETURNS TABLE (seq bigint, entry_id bigint, prev_hash bytea, hash bytea, digest bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT s.seq, s.entry_id, s.prev_hash, s.hash, CASE WHEN a.id IS NOT NULL THEN
    sha256(convert_to(jsonb_build_array(a.id, a.account_id, a.actor, a.action, a.subject, a.detail,
      to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text, 'UTF8')) END
  FROM audit_seals s LEFT JOIN audit_log a ON a.id = s.entry_id
  WHERE s.seq > after ORDER BY s.seq LIMIT count
$$;
CREATE FUNCTION tagmill_audit_loose()
RETURNS TABLE (waiting bigint, oldest double precision, lost bigint, stray bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT count(*), max(extract(epoch FROM now() - a.created_at))::float8, min(u.entry_id) FILTER (WHERE a.id IS NULL),
    (SELECT min(l.id) FROM audit_log l
     WHERE NOT EXISTS (SELECT FROM audit_seals s WHERE s.entry_id = l.id)
       AND NOT EXISTS (SELECT FROM audit_unsealed w WHERE w.entry_id = l.id))
  FROM audit_unsealed u LEFT JOIN audit_log a ON a.id = u.entry_id
$$;
REVOKE ALL ON FUNCTION tagmill_audit_links(bigint, integer), tagmill_audit_loose() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_audit_links(bigint, integer), tagmill_audit_loose() TO tagmill_api, tagmill_worker;
"""

# Decisions of one call are a batch, and an audit entry holds their digest. What publishing a rerun changes in a verdict
# is a decision too (kind rerun): so every change of a stored verdict has its before and after in one table.
DECISIONS = """
ALTER TABLE decisions ADD COLUMN batch uuid;
CREATE INDEX decisions_batch ON decisions (batch, id);
ALTER TABLE decisions DROP CONSTRAINT decisions_kind_check;
ALTER TABLE decisions ADD CONSTRAINT decisions_kind_check
  CHECK (kind IN ('policy', 'bank', 'rerun', 'review', 'appeal'));
ALTER TABLE decisions DROP CONSTRAINT decisions_check1;
ALTER TABLE decisions ADD CONSTRAINT decisions_check1
  CHECK (kind IN ('policy', 'bank', 'rerun') OR verdict IS DISTINCT FROM 'review');
"""

APPEALS = """
CREATE TABLE appeals (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  context text NOT NULL DEFAULT '',
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  moderation_id uuid,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'upheld', 'overturned', 'withdrawn')),
  verdict text NOT NULL CHECK (verdict IN ('review', 'reject')),
  decision_id uuid,
  code text,
  policy text,
  text text NOT NULL,
  contact text,
  opened_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  decided_at timestamptz,
  answer_id uuid,
  version integer NOT NULL DEFAULT 0,
  CHECK ((state = 'open') = (decided_at IS NULL)),
  CHECK ((state IN ('upheld', 'overturned')) = (answer_id IS NOT NULL))
);
CREATE UNIQUE INDEX appeals_one_open ON appeals (account_id, sha256, context) WHERE state = 'open';
CREATE INDEX appeals_account ON appeals (account_id, id DESC);
CREATE INDEX appeals_item ON appeals (job_id, seq, id DESC);
ALTER TABLE appeals ENABLE ROW LEVEL SECURITY;
CREATE POLICY appeals_api ON appeals TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY appeals_worker ON appeals TO tagmill_worker USING (true) WITH CHECK (true);
"""

# Nobody but the owner changes or removes a seal: there is no UPDATE, and only what waits can be taken away.
GRANTS = """
GRANT INSERT ON audit_unsealed TO tagmill_api, tagmill_worker;
GRANT SELECT, DELETE ON audit_unsealed TO tagmill_worker;
GRANT SELECT ON audit_seals TO tagmill_api, tagmill_worker;
GRANT INSERT ON audit_seals TO tagmill_worker;
GRANT SELECT, INSERT ON appeals TO tagmill_api, tagmill_worker;
GRANT UPDATE (state, decided_at, answer_id, version) ON appeals TO tagmill_api, tagmill_worker;
"""

# As in 0003, but for the verdict: `{verdict}`.
CATALOG = """
CREATE VIEW catalog_tags WITH (security_invoker = true) AS
SELECT i.account_id, i.product_id, r.job_id, r.seq, i.client_id, i.url, encode(r.sha256, 'hex') AS sha256,
  t.label, t."group", t.score, t.model, {verdict} AS verdict, r.created_at
FROM items i JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq,
  jsonb_to_recordset(r.tags) AS t(label text, "group" text, score real, model text)
WHERE i.product_id IS NOT NULL AND r.outcome = 'done' AND NOT EXISTS (
    SELECT FROM current_labels l
    WHERE l.account_id = i.account_id AND l.sha256 = r.sha256 AND l."group" = t."group")
UNION ALL
SELECT i.account_id, i.product_id, r.job_id, r.seq, i.client_id, i.url, encode(r.sha256, 'hex') AS sha256,
  said.label, l."group", 1.0::real, NULL, {verdict} AS verdict, r.created_at
FROM items i JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
JOIN current_labels l ON l.account_id = i.account_id AND l.sha256 = r.sha256 AND l."group" <> 'verdict',
  unnest(l.present) AS said(label)
WHERE i.product_id IS NOT NULL AND r.outcome = 'done';
GRANT SELECT ON catalog_tags TO tagmill_api, tagmill_worker;
"""

# A person's verdict on these bytes in the job's context, else the machine's.
COUNTING = """coalesce((SELECT d.verdict FROM human_decisions d WHERE d.account_id = i.account_id
    AND d.sha256 = r.sha256 AND d.context = (SELECT j.context FROM jobs j WHERE j.id = i.job_id)),
    r.moderation ->> 'verdict')"""

BACK = """
DROP VIEW catalog_tags;
DROP TABLE appeals;
DROP FUNCTION tagmill_audit_links(bigint, integer), tagmill_audit_loose();
DROP INDEX audit_log_account, audit_log_batch;
DROP TABLE audit_seals, audit_unsealed;
ALTER TABLE decisions DROP COLUMN batch;
DELETE FROM decisions WHERE kind = 'rerun';
ALTER TABLE decisions DROP CONSTRAINT decisions_kind_check;
ALTER TABLE decisions ADD CONSTRAINT decisions_kind_check CHECK (kind IN ('policy', 'bank', 'review', 'appeal'));
ALTER TABLE decisions DROP CONSTRAINT decisions_check1;
ALTER TABLE decisions ADD CONSTRAINT decisions_check1
  CHECK (kind IN ('policy', 'bank') OR verdict IS DISTINCT FROM 'review');
"""


def upgrade() -> None:
    catalog = "DROP VIEW catalog_tags;" + CATALOG.format(verdict=COUNTING)
    for sql in (CHAIN, CHAIN_FUNCTIONS, DECISIONS, APPEALS, GRANTS, catalog):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    for sql in (BACK, CATALOG.format(verdict="r.moderation ->> 'verdict'")):
        op.get_bind().exec_driver_sql(sql)
