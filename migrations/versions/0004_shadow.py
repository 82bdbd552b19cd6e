"""Shadow runs: what a candidate says beside the active model, apart from every result.

Why plain SQL: see 0001.
"""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
