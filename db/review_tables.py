"""The tables of the review queue, as the code sees them; their DDL is in `migrations/`."""
