"""The tables of people and their sessions, as the code sees them; their DDL is in `migrations/`."""
