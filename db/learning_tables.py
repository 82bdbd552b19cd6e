"""The tables of learning from people and of watching models, as the code sees them; their DDL is in `migrations/`."""
