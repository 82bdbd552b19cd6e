"""Entries of hash banks that found more among the pictures there were than the operator allows, until somebody looks.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0017"
down_revision = "0016"

# NULL: not too many, or somebody has looked. Maintenance counts, for the API neither knows the limit nor sees the
# pictures of all accounts.
COLUMN = """
ALTER TABLE hash_entries ADD COLUMN wide integer CHECK (wide > 0);
CREATE INDEX hash_entries_wide ON hash_entries (bank_id) WHERE wide IS NOT NULL AND removed_at IS NULL;
"""

# As in 0009, with one gauge more.
METRICS = """
CREATE OR REPLACE FUNCTION tagmill_bank_metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'bank_hits_last_hour', jsonb_build_object('kind', b.kind), count(*)::float8
    FROM hash_hits h JOIN hash_banks b ON b.id = h.bank_id
    WHERE NOT h.retroactive AND h.created_at > now() - interval '1 hour' GROUP BY b.kind
  UNION ALL
  SELECT 'bank_entries_quarantined', '{{}}', count(*)::float8 FROM hash_entries
    WHERE quarantined_at IS NOT NULL AND removed_at IS NULL
  UNION ALL{more}
  SELECT 'bank_oldest_change_seconds', '{{}}', coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
    FROM bank_changes WHERE state <> 'done'
$$;
"""
WIDE = """
  SELECT 'bank_entries_wide', '{}', count(*)::float8 FROM hash_entries
    WHERE wide IS NOT NULL AND enabled AND quarantined_at IS NULL AND expired_at IS NULL AND removed_at IS NULL
  UNION ALL"""


def upgrade() -> None:
    for sql in (COLUMN, METRICS.format(more=WIDE)):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    for sql in (METRICS.format(more=""), "ALTER TABLE hash_entries DROP COLUMN wide"):
        op.get_bind().exec_driver_sql(sql)
