"""`tagmill up`: the whole system on one machine, servers and roles, until told to stop; does none of the work.

start: lock the folder → check the settings → end leftovers → Postgres, Valkey (unless a URL is configured)
       → migrate → key → roles
watch: a role or server that ended is started again, later and later while it keeps failing
stop:  roles (SIGTERM, then SIGKILL) → servers; if we are killed instead, the kernel ends our children
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from db import migrate, registry
from db.session import API_ROLE, WORKER_ROLE, Database
from worker import local, local_person, localkey, roles, settings_check
from worker.client import Client
from worker.embedded import EmbeddedPostgres, EmbeddedValkey
from worker.home import Home, Running
from worker.rolelog import RoleLog
from worker.roleprocess import RoleProcess, end_leftovers, pause_before_restart
from worker.service import Service, ServiceError, free_port, is_free, write_private

STOP_ROLES_S = 40.0


def with_login(url: str, user: str, password: str) -> str:
    """The same Postgres URL for another login. The password must need no quoting (ours are URL-safe)."""
    parts = urlsplit(url)
    _, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{password}@{address}").geturl()


class Supervisor:
    """Everything `tagmill up` keeps running. Use it from one thread: children live as long as it.

    `settings` are TAGMILL_* variables for the roles; `say` is told in plain words what happens.
    """

    def __init__(
        self,
        home: Home,
        *,
        listen: roles.Listen,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
        echo_log: bool = False,
    ) -> None:
        self.home = home
        self.listen = listen
        self._settings = dict(settings or {})
        self._say = say
        self._echo_log = echo_log
        self._services: list[Service] = []
        self._children: list[RoleProcess] = []
        self._failed: dict[str, tuple[int, float]] = {}
        self._log: RoleLog | None = None
        self.database_url = ""
        self.broker_url = ""

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.listen.host in ("0.0.0.0", "::") else self.listen.host  # noqa: S104
        return f"http://{host}:{self.listen.port}"

    @property
    def restarts(self) -> dict[str, int]:
        """How often each role had to be started again."""
        return {child.role: child.restarts for child in self._children}

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each role that runs now."""
        return {child.role: child.pid for child in self._children if child.pid is not None}

    @property
    def server_pids(self) -> dict[str, int]:
        """The process id of each server that runs now, where it is one of ours."""
        return {server.name: server.pid for server in self._services if server.pid is not None}

    def start(self) -> None:
        """Bring everything up, up to the start of the roles. ServiceError, DbError if something cannot."""
        self.home.take()
        try:
            self.home.prepare()
            settings_check.check(self._foreseen())
            end_leftovers(self.home.run)
            self._choose_port()
            self._log = RoleLog(self.home.log, echo=self._echo_log)
            self.database_url = self._start_postgres()
            self.broker_url = self._start_valkey()
            self._say("bringing the database to the newest schema")
            environments = self._migrate()
            localkey.ensure(self.database_url, self.home)
            self._children = [
                RoleProcess(
                    role,
                    roles.command(role, self.listen),
                    roles.environment(environments[role]),
                    log=self._log,
                    run=self.home.run,
                )
                for role in roles.ROLES
            ]
            self._say("starting " + ", ".join(roles.ROLES))
            for child in self._children:
                child.launch()
            blobs, models = (environments["api"][name] for name in ("TAGMILL_BLOB_ROOT", "TAGMILL_MODEL_ROOT"))
            running = Running(os.getpid(), self.url, self.database_url, self.broker_url, blobs, models, local.store())
            self.home.announce(running)
        except BaseException:
            self.stop()
            raise

    def await_ready(self, timeout_s: float = 90.0) -> None:
        """Return when the API says it can serve and every role runs; ServiceError if that does not come in time."""
        deadline = time.monotonic() + timeout_s
        with Client(self.url, None) as client:
            while not client.ready() or len(self.pids) < len(self._children):
                self.watch()
                self.give_up_on_failing()
                if time.monotonic() > deadline:
                    raise ServiceError("not_ready", f"the API did not become ready; {self._log_end('api')}")
                time.sleep(0.2)

    def active_models(self) -> dict[str, str]:
        """The active model of each task, as name@version."""
        database = Database(self.database_url, pool_size=1)
        try:
            with database.transaction() as session:
                return {model.task: model.ref for model in registry.list_models(session) if model.state == "active"}
        finally:
            database.dispose()

    def sign_in_link(self) -> tuple[str, str]:
        """Who may open the console here, and a link that lets them in once."""
        return local_person.sign_in_link(self.database_url, os.environ.get("TAGMILL_PUBLIC_URL") or self.url)

    def watch(self) -> None:
        """Look once at every server and role and start again what ended; call it about twice a second.

        ServiceError for a role that refuses what it is given, at its first start.
        """
        now = time.monotonic()
        for service in self._services:
            if not service.running:
                self._start_again(service, now)
        for child in self._children:
            news = child.watch(now)
            if child.refused:
                raise ServiceError("role_refused", f"{child.role} refuses to start; {self._log_end(child.role)}")
            if news:
                self._say(news)

    def _start_again(self, service: Service, now: float) -> None:
        """What stops it (a taken port, a full disk) may pass: the roles wait for it meanwhile, as in any outage."""
        failures, due = self._failed.get(service.name, (0, now))
        if now < due:
            return
        self._say(f"{service.name} ended, starting it again")
        try:
            service.start()
        except (ServiceError, OSError) as error:
            pause = pause_before_restart(failures + 1)
            self._failed[service.name] = failures + 1, time.monotonic() + pause
            self._say(f"{error}; trying again in {pause:g} s")
        else:
            self._failed.pop(service.name, None)

    def give_up_on_failing(self, most: int = 4) -> None:
        """ServiceError with the end of the log once a role was started again more than ``most`` times."""
        for role, count in self.restarts.items():
            if count > most:
                raise ServiceError("role_failing", f"{role} ended {count} times; {self._log_end(role)}")

    def _log_end(self, role: str) -> str:
        lines = self.home.log.read_text(errors="replace").splitlines()
        own = [line for line in lines if line.startswith(role)][-12:]
        return "\n".join([f"the end of {self.home.log}:", *own])

    def stop(self) -> None:
        """Stop roles, then servers, in at most a minute; safe to call twice and half-way through `start`."""
        for child in self._children:
            child.ask_to_stop()
        deadline = time.monotonic() + STOP_ROLES_S
        for child in self._children:
            child.stop(deadline)
        for service in reversed(self._services):
            service.stop()
        self._services.clear()
        self._children.clear()
        if self._log is not None:
            self._log.close()
            self._log = None
        self.home.leave()

    # --- parts of start -------------------------------------------------------------------------------------

    def _choose_port(self) -> None:
        """Port 0 asks for any free one; a taken one is an error with a remedy."""
        if self.listen.port == 0:
            chosen = free_port()
            self.listen = roles.Listen(self.listen.host, chosen, self.listen.workers, self.listen.threads)
        elif not is_free(self.listen.port, self.listen.host):
            raise ServiceError("port_taken", f"port {self.listen.port} is taken: choose another with --port")

    def _foreseen(self) -> dict[str, str]:
        """The roles' environment, with stand-ins for what is not known before the servers run."""
        stand_ins = {
            "TAGMILL_DATABASE_URL": "postgresql://127.0.0.1/tagmill",
            "TAGMILL_BROKER_URL": "redis://127.0.0.1/0",
            "TAGMILL_BLOB_ROOT": str(self.home.blobs),
            "TAGMILL_MODEL_ROOT": str(self.home.models),
        }
        unset = {name: value for name, value in stand_ins.items() if not os.environ.get(name)}
        return roles.environment({**unset, **self._settings})

    def _start_postgres(self) -> str:
        if configured := os.environ.get("TAGMILL_DATABASE_URL"):
            self._say("using the configured Postgres")
            return configured
        self._say("starting Postgres")
        server = EmbeddedPostgres(self.home.postgres)
        self._services.append(server)
        return server.start().url

    def _start_valkey(self) -> str:
        if configured := os.environ.get("TAGMILL_BROKER_URL"):
            self._say("using the configured broker")
            return configured
        self._say("starting Valkey")
        server = EmbeddedValkey(self.home.valkey)
        self._services.append(server)
        return server.start().url

    def _migrate(self) -> dict[str, dict[str, str]]:
        """Migrate, and say with which variables each role starts.

        In our own Postgres the roles get passwords of their own. In a configured one their passwords are its
        operator's: there we connect as configured and take the role.
        """
        shared = {
            "TAGMILL_BROKER_URL": self.broker_url,
            "TAGMILL_BLOB_ROOT": os.environ.get("TAGMILL_BLOB_ROOT", str(self.home.blobs)),
            "TAGMILL_MODEL_ROOT": os.environ.get("TAGMILL_MODEL_ROOT", str(self.home.models)),
            "TAGMILL_WEBHOOK_KEYS": os.environ.get("TAGMILL_WEBHOOK_KEYS") or self.home.webhook_key(),
            "PROMETHEUS_MULTIPROC_DIR": str(self._fresh_folder("metrics")),
            **self._settings,
        }
        owners = {name: API_ROLE if name == "api" else WORKER_ROLE for name in roles.ROLES}
        if os.environ.get("TAGMILL_DATABASE_URL"):
            migrate.upgrade(self.database_url)
            taken = {"TAGMILL_DATABASE_URL": self.database_url}
            return {name: {**shared, **taken, "TAGMILL_DATABASE_ROLE": role} for name, role in owners.items()}
        passwords = self._role_passwords()
        migrate.upgrade(self.database_url, api_password=passwords[API_ROLE], worker_password=passwords[WORKER_ROLE])
        return {
            name: {**shared, "TAGMILL_DATABASE_URL": with_login(self.database_url, role, passwords[role])}
            for name, role in owners.items()
        }

    def _fresh_folder(self, name: str) -> Path:
        folder = self.home.run / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _role_passwords(self) -> dict[str, str]:
        path = self.home.run / "passwords.json"
        if not path.exists():
            write_private(path, json.dumps({role: secrets.token_urlsafe(24) for role in (API_ROLE, WORKER_ROLE)}))
        passwords: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return passwords
