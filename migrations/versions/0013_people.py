"""People who use the console, and their sessions.

Why plain SQL: see 0001.
"""

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
