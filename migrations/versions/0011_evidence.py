"""Evidence: appeals, and the hash chain over the audit log.

Why plain SQL: see 0001.
"""

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
