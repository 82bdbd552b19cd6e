"""HTTP: parses, opens one transaction, calls one or two `db` functions, answers. Never publishes, never decodes."""
