"""The tables of appeals and of the chain over the audit log, as the code sees them; their DDL is in `migrations/`."""
