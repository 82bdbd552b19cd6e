"""Buckets that a retention clock has emptied are dropped.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

# Of the closed buckets without a job, the first; NULL: there is none, or somebody uses the tables just now.
# Dropping a partition locks its parent against everybody. So it waits a tenth of a second for each lock and no longer:
# who comes behind it waits as long, and it is tried again. What it does under the locks takes milliseconds: only tables
# that vacuum has made small are looked through.
DROP = """
CREATE FUNCTION tagmill_drop_bucket() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE b integer; leaves text[]; leaf text; used boolean;
BEGIN
  FOR b IN SELECT id FROM buckets WHERE closed_at < now() - interval '1 day' ORDER BY id LOOP
    leaves := ARRAY['items_b' || b, 'ingests_b' || b, 'results_b' || b];
    CONTINUE WHEN (SELECT max(pg_relation_size(l::regclass)) > 1048576 FROM unnest(leaves) AS l);
    CONTINUE WHEN EXISTS (SELECT FROM jobs WHERE bucket = b);
    BEGIN
      LOCK TABLE ONLY items, ONLY ingests, ONLY results IN ACCESS EXCLUSIVE MODE;
      FOREACH leaf IN ARRAY leaves LOOP
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', leaf);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', leaf) INTO used;
        IF used THEN RAISE lock_not_available; END IF;
      END LOOP;
      DELETE FROM buckets WHERE id = b;
      FOREACH leaf IN ARRAY leaves LOOP
        EXECUTE format('DROP TABLE %I', leaf);
      END LOOP;
      RETURN b;
    EXCEPTION WHEN lock_not_available THEN RETURN NULL;
    END;
  END LOOP;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tagmill_drop_bucket() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_drop_bucket() TO tagmill_worker;
"""

BACK = "DROP FUNCTION tagmill_drop_bucket();"


def upgrade() -> None:
    # Straight to psycopg: SQLAlchemy would take the % of format() for its placeholders.
    op.get_bind().connection.driver_connection.execute(DROP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(BACK)
