"""The default policy's second version: nothing is rejected by scores alone (figures: docs/moderation_accuracy.md).

A new installation begins with it; one that has decided already keeps what it decides by, and finds the new version as
a draft: `tagmill policies try`, then `tagmill policies activate default@2`.

Why plain SQL: see 0001.
"""

import json
from typing import Any

from alembic import op

revision = "0016"
down_revision = "0015"

# As docs/policies/default-2.yaml; a test compares the two.
DOCUMENT: dict[str, Any] = {
    "name": "default",
    "version": 2,
    "description": (
        "For a shop of clothes. Nothing is rejected by scores alone: what the model takes for explicit goes to people,"
        " from where it says so more likely than not. Measured in docs/moderation_accuracy.md."
    ),
    "mode": "first_match",
    "rules": [
        {
            "id": "banned",
            "when": {"bank_kind": "block"},
            "then": "reject",
            "code": "banned_picture",
            "text": "This picture matches one that was banned.",
        },
        {
            "id": "known-good",
            "when": {"bank_kind": "allow"},
            "then": "approve",
            "code": "known_picture",
            "text": "This picture matches one that people have approved.",
        },
        {
            "id": "explicit",
            "when": {"sum": ["Porn", "Hentai"], "at_least": 0.5},
            "then": "review",
            "code": "explicit_suspected",
            "text": "The picture may be sexually explicit. Somebody will look at it.",
        },
        {
            "id": "suggestive",
            "when": {"sum": ["Porn", "Hentai", "Sexy"], "at_least": 0.8},
            "then": "review",
            "code": "suggestive_suspected",
            "text": "The picture may be too suggestive for a shop. Somebody will look at it.",
        },
    ],
    "otherwise": "approve",
    "on_missing": "review",
    "audit_share": 0.005,
    "reject_reasons": [
        {
            "code": "nudity",
            "text": "The picture shows nudity or sexual content, which is not allowed here.",
        },
        {
            "code": "drawn_sexual_content",
            "text": "The picture shows drawn or animated sexual content, which is not allowed here.",
        },
        {
            "code": "not_allowed",
            "text": "The picture breaks the rules for pictures of this shop.",
        },
    ],
}

# Whoever has saved a version 2 of that name keeps it.
ADD = """
INSERT INTO policies (name, version, document, state, created_by)
SELECT 'default', 2, CAST(%(document)s AS jsonb), 'draft', 'system'
WHERE NOT EXISTS (SELECT 1 FROM policies WHERE name = 'default' AND version >= 2);
"""
BEGIN_WITH_IT = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM jobs) AND EXISTS (
    SELECT 1 FROM policies WHERE account_id IS NULL AND name = 'default' AND version = 2 AND created_by = 'system'
      AND state = 'draft') THEN
    UPDATE policies SET state = 'retired', retired_at = now()
      WHERE account_id IS NULL AND name = 'default' AND version = 1;
    UPDATE policies SET state = 'active', activated_at = now()
      WHERE account_id IS NULL AND name = 'default' AND version = 2;
    INSERT INTO policy_activations (name, version, replaced, actor) VALUES ('default', 2, 1, 'system');
  END IF;
END $$;
"""
BACK = """
UPDATE policies SET state = 'active', activated_at = now(), retired_at = NULL
  WHERE account_id IS NULL AND name = 'default' AND version = 1 AND EXISTS (
    SELECT 1 FROM policies WHERE account_id IS NULL AND name = 'default' AND version = 2 AND created_by = 'system'
      AND state = 'active');
"""
FORGET = """
DELETE FROM policies WHERE account_id IS NULL AND name = 'default' AND version = 2 AND created_by = 'system';
"""


def upgrade() -> None:
    connection = op.get_bind().connection.driver_connection
    connection.execute(ADD, {"document": json.dumps(DOCUMENT)})
    connection.execute(BEGIN_WITH_IT)


def downgrade() -> None:
    connection = op.get_bind().connection.driver_connection
    connection.execute("DROP INDEX policies_active")
    connection.execute(BACK)
    connection.execute(FORGET)
    connection.execute(
        "CREATE UNIQUE INDEX policies_active ON policies (name, coalesce(account_id, 0)) WHERE state = 'active'"
    )
