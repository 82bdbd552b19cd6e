"""The tables of policies, as the code sees them; their DDL is in `migrations/`."""
