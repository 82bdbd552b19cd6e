"""The tables of hash banks, as the code sees them; their DDL is in `migrations/`."""
