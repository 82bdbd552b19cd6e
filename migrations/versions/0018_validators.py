"""Validators of fetched URLs, so that a later job can ask whether the bytes changed; and what a chunk reused.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

# `url_hash`: BLAKE2b of the URL as fetched. `seen_at`: when the server last said so, to the day: see `db.validators`.
TABLE = """
CREATE TABLE validators (
  account_id bigint NOT NULL,
  url_hash bytea NOT NULL CHECK (octet_length(url_hash) = 16),
  sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
  etag text CHECK (length(etag) <= 256),
  last_modified text CHECK (length(last_modified) <= 64),
  seen_at timestamptz NOT NULL DEFAULT now(),
  CHECK (etag IS NOT NULL OR last_modified IS NOT NULL),
  PRIMARY KEY (account_id, url_hash)
);
CREATE INDEX validators_age ON validators (seen_at);
"""

# Which normaliser, in which settings, made the working copy; NULL before this migration: then nothing is reused.
COLUMNS = """
ALTER TABLE images ADD COLUMN made_by bigint;
ALTER TABLE chunks ADD COLUMN reused jsonb NOT NULL DEFAULT '{}';
"""

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON validators TO tagmill_worker"

# The API's role has no business here, and would see its own account's rows only.
POLICY = """
ALTER TABLE validators ENABLE ROW LEVEL SECURITY;
CREATE POLICY validators_api ON validators TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY validators_worker ON validators TO tagmill_worker USING (true) WITH CHECK (true);
"""

METRICS = """
CREATE FUNCTION tagmill_reuse_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'items_reused_last_hour', jsonb_build_object('kind', r.key), sum(r.value::int)::float8
    FROM chunks, jsonb_each_text(reused) AS r WHERE finished_at > now() - interval '1 hour' GROUP BY r.key
$$;
REVOKE ALL ON FUNCTION tagmill_reuse_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_reuse_metrics() TO tagmill_api, tagmill_worker;
"""


def upgrade() -> None:
    for sql in (TABLE, COLUMNS, GRANTS, POLICY, METRICS):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP FUNCTION tagmill_reuse_metrics(); DROP TABLE validators; ALTER TABLE images DROP COLUMN made_by;"
        " ALTER TABLE chunks DROP COLUMN reused"
    )
