"""Alembic's entry: runs the migrations on the connection that `db.migrate` hands over. Reads no ini file, no env."""

from alembic import context

from db.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
