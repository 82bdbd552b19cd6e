"""Whether a role lives on this host, by its heartbeat in Postgres: the health check of containers. Starts nothing."""

import socket
import sys

from db import workers
from db.errors import DbError
from db.session import WORKER_ROLE, Database
from worker.settings import WorkerSettings

SILENT_S = 30.0


def beats(database: Database, role: str, host: str, within_s: float = SILENT_S) -> bool:
    """Whether a process of this role on this host beat within the last `within_s` seconds."""
    with database.transaction() as session:
        return any(one["role"] == role and one["host"] == host for one in workers.alive(session, within_s))


def main(role: str) -> int:
    """Exit code 0 if it does; 1 if not, or if Postgres cannot be asked."""
    settings = WorkerSettings()
    database = Database(settings.database_url, role=settings.database_role or WORKER_ROLE, pool_size=1)
    try:
        return 0 if beats(database, role, socket.gethostname()) else 1
    except DbError as error:
        print(error.code, file=sys.stderr)
        return 1
    finally:
        database.dispose()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
