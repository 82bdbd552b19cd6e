"""Webhooks: endpoints and deliveries.

Why plain SQL: see 0001.
"""

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
