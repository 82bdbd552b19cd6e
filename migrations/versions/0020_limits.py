"""Limits of an account: requests a minute, items a day, and what it has used of them.

Why plain SQL: see 0001.
"""

from alembic import op

revision = "0020"
down_revision = "0019"

# NULL: as the settings say for everybody; 0: no limit.
OWN = """
ALTER TABLE accounts ADD COLUMN requests_per_minute integer CHECK (requests_per_minute >= 0);
ALTER TABLE accounts ADD COLUMN items_per_day bigint CHECK (items_per_day >= 0);
"""

# Not logged: written at every request, and after a crash of Postgres every bucket may as well be full. No foreign key:
# its look at the account's row would wait for claims, which lock that.
RATES = """
CREATE UNLOGGED TABLE account_rates (
  account_id bigint PRIMARY KEY,
  spent_until timestamptz NOT NULL
) WITH (fillfactor = 50);
"""

# One call is one transaction of the server's: no client that stands still holds an account's bucket. A bucket is the
# time at which it is full again; one that is further ahead than it can be was made by a clock that has stepped back.
TAKE = """
CREATE FUNCTION tagmill_take_request(account bigint, cost double precision, most double precision)
  RETURNS TABLE (taken boolean, spent double precision)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO account_rates AS r (account_id, spent_until)
  VALUES (account, clock_timestamp() + make_interval(secs => cost))
  ON CONFLICT (account_id) DO UPDATE SET spent_until = make_interval(secs => cost) + CASE
      WHEN r.spent_until < clock_timestamp() OR r.spent_until > clock_timestamp() + make_interval(secs => most + 1)
      THEN clock_timestamp() ELSE r.spent_until END
    WHERE r.spent_until + make_interval(secs => cost) <= clock_timestamp() + make_interval(secs => most)
      OR r.spent_until > clock_timestamp() + make_interval(secs => most + 1)
  RETURNING true, extract(epoch FROM r.spent_until - clock_timestamp()) INTO taken, spent;
  IF NOT FOUND THEN
    SELECT false, extract(epoch FROM r.spent_until - clock_timestamp()) INTO taken, spent
    FROM account_rates r WHERE r.account_id = account;
  END IF;
  RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION tagmill_take_request(bigint, double precision, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tagmill_take_request(bigint, double precision, double precision) TO tagmill_api;
"""

DAYS = """
CREATE TABLE account_days (
  account_id bigint NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  day date NOT NULL,
  items bigint NOT NULL CHECK (items >= 0),
  PRIMARY KEY (account_id, day)
) WITH (fillfactor = 70);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON account_days TO tagmill_api, tagmill_worker;
GRANT SELECT ON account_rates TO tagmill_api, tagmill_worker;
"""

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY {table}_api ON {table} TO tagmill_api
  USING (account_id = nullif(current_setting('tagmill.account', true), '')::bigint)
  WITH CHECK (account_id = nullif(current_setting('tagmill.account', true), '')::bigint);
CREATE POLICY {table}_worker ON {table} TO tagmill_worker USING (true) WITH CHECK (true);
"""
WALLED = ("account_rates", "account_days")

BACK = """
DROP FUNCTION tagmill_take_request(bigint, double precision, double precision);
DROP TABLE account_days, account_rates;
ALTER TABLE accounts DROP COLUMN items_per_day;
ALTER TABLE accounts DROP COLUMN requests_per_minute;
"""


def upgrade() -> None:
    for sql in (OWN, RATES, TAKE, DAYS, GRANTS, *(POLICY.format(table=table) for table in WALLED)):
        op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(BACK)
