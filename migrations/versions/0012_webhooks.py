"""Webhooks: endpoints, what their secrets are made from, deliveries and their tries; marks on events fanned out.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

# A delivery is an event at an endpoint, so the two ids are its key: nothing is sent twice because it was fanned out
# twice. `step` is its place in the schedule of tries, `attempts` counts all of them, `claims` counts the leases since
# the last try that was recorded.
TABLES = """
CREATE TABLE webhooks (
  id uuid PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
  url text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
  description text CHECK (length(description) BETWEEN 1 AND 200),
  types text[] CHECK (cardinality(types) > 0),
  state text NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'disabled')),
  reason text CHECK (reason IN ('owner', 'gone', 'failing')),
  failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  failing_since timestamptz,
  paused_until timestamptz,
  delivered_at timestamptz,
  disabled_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((state = 'disabled') = (reason IS NOT NULL)),
  CHECK ((state = 'disabled') = (disabled_at IS NOT NULL)),
  CHECK ((failures > 0) = (failing_since IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX webhooks_account ON webhooks (account_id, id DESC);

CREATE TABLE webhook_secrets (
  id uuid PRIMARY KEY,
  webhook_id uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
  account_id bigint NOT NULL,
  salt bytea NOT NULL CHECK (octet_length(salt) = 32),
  key_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz
);
CREATE UNIQUE INDEX webhook_secrets_current ON webhook_secrets (webhook_id) WHERE expires_at IS NULL;
CREATE INDEX webhook_secrets_webhook ON webhook_secrets (webhook_id);

CREATE TABLE deliveries (
  webhook_id uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
  event_id uuid NOT NULL REFERENCES outbox ON DELETE CASCADE,
  account_id bigint NOT NULL,
  type text NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
  step smallint NOT NULL DEFAULT 0,
  attempts integer NOT NULL DEFAULT 0,
  claims smallint NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL DEFAULT now(),
  owner uuid,
  fence integer NOT NULL DEFAULT 0,
  lease_until timestamptz,
  code text,
  status smallint,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  PRIMARY KEY (webhook_id, event_id),
  CHECK ((owner IS NULL) = (lease_until IS NULL)),
  CHECK (state = 'pending' OR owner IS NULL),
  CHECK ((state = 'pending') = (ended_at IS NULL)),
  CHECK (state <> 'failed' OR code IS NOT NULL)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX deliveries_due ON deliveries (webhook_id, not_before, event_id) WHERE state = 'pending';
CREATE INDEX deliveries_leased ON deliveries (webhook_id) WHERE owner IS NOT NULL;
CREATE INDEX deliveries_failed ON deliveries (ended_at) WHERE state = 'failed';
CREATE INDEX deliveries_event ON deliveries (event_id);

CREATE TABLE delivery_attempts (
  webhook_id uuid NOT NULL,
  event_id uuid NOT NULL,
  n integer NOT NULL CHECK (n > 0),
  account_id bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  code text,
  status smallint,
  seconds real NOT NULL CHECK (seconds >= 0),
  PRIMARY KEY (webhook_id, event_id, n),
  FOREIGN KEY (webhook_id, event_id) REFERENCES deliveries ON DELETE CASCADE
);
CREATE INDEX delivery_attempts_age ON delivery_attempts (at);
"""

# Events are fanned out by a mark on each, never by a cursor over ids: an id is older than its commit. What was written
# before there were endpoints is nobody's news. An account hears of what belongs to the installation (a model) too, so
# an event is unique within its account.
OUTBOX = """
ALTER TABLE outbox ADD COLUMN fanned_at timestamptz;
UPDATE outbox SET fanned_at = now();
CREATE INDEX outbox_waiting ON outbox (id) WHERE fanned_at IS NULL;
CREATE INDEX outbox_age ON outbox (created_at);
CREATE INDEX outbox_account ON outbox (account_id, created_at);
ALTER TABLE outbox DROP CONSTRAINT outbox_subject_type_round_key;
ALTER TABLE outbox ADD CONSTRAINT outbox_account_id_subject_type_round_key UNIQUE (account_id, subject, type, round);
"""

# What happens to the installation is told to every account that asked for it, also by a role that sees one account:
# of the others it learns nothing but how many there were. The id is a UUID of version 7, as db/ids.py makes them.
BROADCAST = """
CREATE FUNCTION tagmill_broadcast(told text, about text, payload jsonb) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  WITH wanting AS (
    SELECT DISTINCT account_id FROM webhooks WHERE state = 'enabled' AND (types IS NULL OR told = ANY(types))
  ), added AS (
    INSERT INTO outbox (id, account_id, type, subject, round, payload)
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
             substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
             52, 1), 53, 1), 'hex')::uuid,
           w.account_id, told, about,
           (SELECT coalesce(max(o.round) + 1, 0) FROM outbox o
            WHERE o.account_id = w.account_id AND o.subject = about AND o.type = told), payload
    FROM wanting w WHERE told = 'model.activated'
    ON CONFLICT DO NOTHING RETURNING 1
  )
  SELECT count(*)::integer FROM added
$$;
REVOKE ALL ON FUNCTION tagmill_broadcast(text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_broadcast(text, text, jsonb) TO tagmill_api, tagmill_worker;
"""

# As tagmill_metrics: sums over all accounts.
METRICS = """
CREATE FUNCTION tagmill_webhook_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'webhooks', jsonb_build_object('state', state, 'reason', coalesce(reason, '')), count(*)::float8
    FROM webhooks GROUP BY state, reason
  UNION ALL
  SELECT 'webhook_pending', '{}', count(*)::float8 FROM deliveries WHERE state = 'pending'
  UNION ALL
  SELECT 'webhook_oldest_pending_seconds', '{}', coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
    FROM deliveries WHERE state = 'pending'
  UNION ALL
  SELECT 'webhook_oldest_due_seconds', '{}', coalesce(extract(epoch FROM now() - min(d.not_before)), 0)::float8
    FROM deliveries d JOIN webhooks h ON h.id = d.webhook_id
    WHERE d.state = 'pending' AND d.owner IS NULL AND d.not_before <= now() AND h.state = 'enabled'
      AND (h.paused_until IS NULL OR h.paused_until <= now())
  UNION ALL
  SELECT 'webhook_attempts_last_hour', jsonb_build_object('code', coalesce(code, 'delivered')), count(*)::float8
    FROM delivery_attempts WHERE at > now() - interval '1 hour' GROUP BY code
  UNION ALL
  SELECT 'webhook_given_up_last_day', jsonb_build_object('code', code), count(*)::float8
    FROM deliveries WHERE state = 'failed' AND ended_at > now() - interval '1 day' GROUP BY code
  UNION ALL
  SELECT 'outbox_waiting', '{}', count(*)::float8 FROM outbox WHERE fanned_at IS NULL
$$;
REVOKE ALL ON FUNCTION tagmill_webhook_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_webhook_metrics() TO tagmill_api, tagmill_worker;
"""

# The API writes what a secret is made from and cannot read it back.
GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks TO tagmill_api, tagmill_worker;
GRANT SELECT (id, webhook_id, account_id, created_at, expires_at), INSERT, UPDATE (expires_at)
  ON webhook_secrets TO tagmill_api;
GRANT SELECT, DELETE ON webhook_secrets TO tagmill_worker;
GRANT SELECT, INSERT, UPDATE ON deliveries TO tagmill_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON deliveries TO tagmill_worker;
GRANT SELECT ON delivery_attempts TO tagmill_api;
GRANT SELECT, INSERT, DELETE ON delivery_attempts TO tagmill_worker;
GRANT UPDATE (fanned_at), DELETE ON outbox TO tagmill_worker;
"""

WALLED = ("webhooks", "webhook_secrets", "deliveries", "delivery_attempts")
POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    for sql in (TABLES, OUTBOX, BROADCAST, METRICS, GRANTS):
        op.get_bind().exec_driver_sql(sql)
    for table in WALLED:
        op.get_bind().exec_driver_sql(POLICY.format(table=table))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        "DROP FUNCTION tagmill_webhook_metrics(), tagmill_broadcast(text, text, jsonb);"
        "DROP TABLE delivery_attempts, deliveries, webhook_secrets, webhooks;"
        "DROP INDEX outbox_waiting, outbox_age, outbox_account;"
        "REVOKE UPDATE (fanned_at), DELETE ON outbox FROM tagmill_worker;"
        "ALTER TABLE outbox DROP COLUMN fanned_at;"
        "ALTER TABLE outbox DROP CONSTRAINT outbox_account_id_subject_type_round_key;"
        "DELETE FROM outbox a USING outbox b WHERE a.id > b.id"
        " AND (a.subject, a.type, a.round) = (b.subject, b.type, b.round);"
        "ALTER TABLE outbox ADD CONSTRAINT outbox_subject_type_round_key UNIQUE (subject, type, round)"
    )
