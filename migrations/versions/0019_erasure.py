"""Erasures: what was asked to be forgotten, the tombstones that keep it forgotten, blobs to remove, retention.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# An erased item keeps its place and nothing else. Not validated: every row there is holds by the stricter one before.
ITEMS = """
ALTER TABLE items DROP CONSTRAINT items_check;
ALTER TABLE items ADD CONSTRAINT items_check CHECK (url IS NULL OR raw_key IS NULL) NOT VALID;
ALTER TABLE datasets DROP CONSTRAINT datasets_entries_check;
ALTER TABLE datasets ADD CONSTRAINT datasets_entries_check CHECK (entries >= 0);
ALTER TABLE images ADD COLUMN aged_at timestamptz;
"""

# Where else a picture is: an upload by its bytes, a failure that has a picture, a shared working copy, a rerun's copy.
INDEXES = """
CREATE INDEX items_raw ON items USING hash (raw_key) WHERE raw_key IS NOT NULL;
CREATE INDEX results_failed_picture ON results (account_id, sha256) WHERE outcome = 'failed' AND sha256 IS NOT NULL;
CREATE INDEX images_copy ON images USING hash (work_key);
CREATE INDEX images_age ON images (created_at) WHERE aged_at IS NULL;
CREATE INDEX rerun_items_source ON rerun_items (job_id, source_seq);
CREATE INDEX audit_log_verdicts ON audit_log (subject) WHERE action = 'moderation.record';
CREATE INDEX jobs_settled ON jobs (settled_at) WHERE settled_at IS NOT NULL;
"""

# `target` of a product or a subject is forgotten with the rest; its SHA-256 stays. `place`: how far it is.
ERASURES = """
CREATE TABLE erasures (
  id uuid PRIMARY KEY,
  account_id bigint,
  kind text NOT NULL CHECK (kind IN ('item', 'product', 'subject', 'job', 'picture', 'account')),
  target text,
  target_sha256 bytea NOT NULL CHECK (octet_length(target_sha256) = 32),
  reference text CHECK (length(reference) BETWEEN 1 AND 200),
  actor text NOT NULL,
  state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'running', 'finished')),
  ends_account boolean NOT NULL DEFAULT false,
  replayed boolean NOT NULL DEFAULT false,
  place jsonb NOT NULL DEFAULT '{}',
  counts jsonb NOT NULL DEFAULT '{}',
  journal_sha256 bytea CHECK (octet_length(journal_sha256) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  rows_at timestamptz,
  finished_at timestamptz,
  settled_at timestamptz,
  CHECK (account_id IS NOT NULL OR kind = 'picture'),
  CHECK (NOT ends_account OR kind = 'account'),
  CHECK ((state = 'asked') = (started_at IS NULL)),
  CHECK ((state = 'finished') = (finished_at IS NOT NULL)),
  CHECK (settled_at IS NULL OR finished_at IS NOT NULL)
);
CREATE INDEX erasures_account ON erasures (account_id, id DESC);
CREATE INDEX erasures_open ON erasures (created_at) WHERE settled_at IS NULL;
"""

# Ids and hashes only. They outlive what they are of, so there are no foreign keys. A picture that is `fenced` is
# refused to jobs that were submitted before `erased_at`; account 0 stands for all accounts.
TOMBSTONES = """
CREATE TABLE erased_items (
  job_id uuid NOT NULL,
  seq integer NOT NULL,
  account_id bigint NOT NULL,
  erasure_id uuid NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (job_id, seq)
);
CREATE INDEX erased_items_erasure ON erased_items (erasure_id, job_id, seq);
CREATE TABLE erased_pictures (
  account_id bigint NOT NULL,
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  erasure_id uuid NOT NULL,
  fenced boolean NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (account_id, sha256, erasure_id)
);
CREATE INDEX erased_pictures_erasure ON erased_pictures (erasure_id, account_id, sha256);
"""

# Blobs that no row names any more, or (`aged`) that were kept for as long as they were to be.
BLOBS = """
CREATE TABLE blob_removals (
  key text PRIMARY KEY,
  account_id bigint NOT NULL,
  erasure_id uuid,
  aged boolean NOT NULL DEFAULT false,
  asked_at timestamptz NOT NULL DEFAULT now(),
  gone_at timestamptz
);
CREATE INDEX blob_removals_next ON blob_removals (asked_at) WHERE gone_at IS NULL;
CREATE INDEX blob_removals_erasure ON blob_removals (erasure_id) WHERE erasure_id IS NOT NULL;
"""

# How far each retention clock has come; the seal that the audit log began with before its oldest part was dropped.
RETENTION = """
CREATE TABLE retention_clocks (
  kind text PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT 'epoch',
  place text NOT NULL DEFAULT '',
  dropped bigint NOT NULL DEFAULT 0,
  moved_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE audit_pruned (
  seq bigint PRIMARY KEY CHECK (seq > 0),
  hash bytea NOT NULL CHECK (octet_length(hash) = 32),
  entries bigint NOT NULL CHECK (entries > 0),
  upto timestamptz NOT NULL,
  pruned_at timestamptz NOT NULL DEFAULT now()
);
"""

GRANTS = """
GRANT SELECT, INSERT ON erasures TO tagmill_api;
GRANT SELECT, INSERT, UPDATE ON erasures TO tagmill_worker;
GRANT SELECT, INSERT ON erased_items, erased_pictures TO tagmill_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON blob_removals, retention_clocks TO tagmill_worker;
GRANT SELECT ON audit_pruned TO tagmill_api, tagmill_worker;
GRANT UPDATE (url, filename, raw_key, client_id, product_id, category) ON items TO tagmill_worker;
GRANT UPDATE (outcome, code, sha256, status) ON ingests TO tagmill_worker;
GRANT UPDATE (outcome, code, detail, sha256) ON results TO tagmill_worker;
GRANT UPDATE (client_id, subject_user, subject_product) ON moderations TO tagmill_worker;
GRANT DELETE ON images, analyses, labels, decisions, appeals, review_tasks, review_opinions, review_comments,
  review_gold, review_exposures, people, console_sessions, sign_in_links, hash_banks, items, jobs TO tagmill_worker;
"""

# What people said and decided goes only where a tombstone says so, or after a month at the soonest: no role but the
# owner of the tables can remove it otherwise.
SAID = """
CREATE POLICY {table}_forgotten ON {table} AS RESTRICTIVE FOR DELETE TO tagmill_worker USING (
  created_at < now() - interval '30 days'
  OR EXISTS (SELECT FROM erased_pictures e WHERE e.account_id = {table}.account_id AND e.sha256 = {table}.sha256)
  OR EXISTS (SELECT FROM erased_items e WHERE e.job_id = {table}.job_id AND e.seq = {table}.seq));
"""
# No role may remove entries of the audit log. This drops its oldest part, seal by seal, half a year old at least, and
# notes the last seal of it, so that the chain still verifies from there on.
PRUNE = """
CREATE FUNCTION tagmill_prune_audit(days double precision, most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE last bigint; dropped bigint;
BEGIN
  IF days IS NULL OR days < 180 THEN RAISE EXCEPTION 'the audit log is kept for 180 days at least'; END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tagmill_prune_audit', 0));
  SELECT coalesce(min(p.seq) FILTER (WHERE p.young) - 1, max(p.seq)) INTO last FROM (
    SELECT s.seq, a.id IS NULL OR a.created_at >= now() - make_interval(secs => 86400 * days) AS young
    FROM audit_seals s LEFT JOIN audit_log a ON a.id = s.entry_id ORDER BY s.seq LIMIT most) AS p;
  SELECT count(*) INTO dropped FROM audit_seals WHERE seq <= last;
  IF dropped = 0 THEN RETURN 0; END IF;
  INSERT INTO audit_pruned (seq, hash, entries, upto) SELECT s.seq, s.hash, dropped,
    (SELECT max(a.created_at) FROM audit_seals t JOIN audit_log a ON a.id = t.entry_id WHERE t.seq <= last)
    FROM audit_seals s WHERE s.seq = last;
  DELETE FROM audit_log a USING audit_seals s WHERE s.seq <= last AND a.id = s.entry_id;
  DELETE FROM audit_seals WHERE seq <= last;
  RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION tagmill_prune_audit(double precision, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_prune_audit(double precision, integer) TO tagmill_worker;
"""

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""
WALLED = ("erasures", "erased_items", "erased_pictures", "blob_removals")

METRICS = """
CREATE FUNCTION tagmill_erasure_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'erasures_open', '{}'::jsonb, count(*)::float8 FROM erasures WHERE settled_at IS NULL AND state <> 'finished'
  UNION ALL
  SELECT 'erasures_oldest_seconds', '{}', coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
    FROM erasures WHERE settled_at IS NULL AND state <> 'finished'
  UNION ALL
  SELECT 'blob_removals_waiting', '{}', count(*)::float8 FROM blob_removals WHERE gone_at IS NULL
$$;
REVOKE ALL ON FUNCTION tagmill_erasure_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_erasure_metrics() TO tagmill_api, tagmill_worker;
"""

# What is erased stays so: an older version finds places without a picture, which can be fetched from nowhere.
BACK = """
DROP POLICY decisions_forgotten ON decisions;
DROP POLICY labels_forgotten ON labels;
DROP FUNCTION tagmill_prune_audit(double precision, integer), tagmill_erasure_metrics();
DROP TABLE audit_pruned, retention_clocks, blob_removals, erased_pictures, erased_items, erasures;
DROP INDEX images_age, items_raw, results_failed_picture, images_copy, rerun_items_source, audit_log_verdicts,
  jobs_settled;
REVOKE UPDATE (url, filename, raw_key, client_id, product_id, category) ON items FROM tagmill_worker;
REVOKE UPDATE (outcome, code, sha256, status) ON ingests FROM tagmill_worker;
REVOKE UPDATE (outcome, code, detail, sha256) ON results FROM tagmill_worker;
REVOKE UPDATE (client_id, subject_user, subject_product) ON moderations FROM tagmill_worker;
REVOKE DELETE ON images, analyses, labels, decisions, appeals, review_tasks, review_opinions, review_comments,
  review_gold, review_exposures, people, console_sessions, sign_in_links, hash_banks,
  items, jobs FROM tagmill_worker;
ALTER TABLE images DROP COLUMN aged_at;
UPDATE items SET url = 'http://erased.invalid/' WHERE url IS NULL AND raw_key IS NULL;
ALTER TABLE items DROP CONSTRAINT items_check;
ALTER TABLE items ADD CONSTRAINT items_check CHECK ((url IS NULL) <> (raw_key IS NULL));
DELETE FROM evaluations WHERE dataset_id IN (SELECT id FROM datasets WHERE entries = 0);
ALTER TABLE datasets DROP CONSTRAINT datasets_entries_check;
UPDATE datasets SET entries = 1 WHERE entries = 0;
ALTER TABLE datasets ADD CONSTRAINT datasets_entries_check CHECK (entries > 0);
"""


def upgrade() -> None:
    said = (SAID.format(table=table) for table in ("decisions", "labels"))
    walls = (POLICY.format(table=table) for table in WALLED)
    for sql in (ITEMS, INDEXES, ERASURES, TOMBSTONES, BLOBS, RETENTION, GRANTS, *walls, *said, PRUNE, METRICS):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(BACK)
