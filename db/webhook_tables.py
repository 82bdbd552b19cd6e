"""The tables of webhooks, as the code sees them; their DDL is in `migrations/`."""
