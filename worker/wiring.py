"""Builds what a worker role runs on from its settings: storage, network, sandbox."""

from db.blob_store import Blobs, open_blobs
from db.session import WORKER_ROLE, Database
from db.webhook_targets import Targets
from worker.fetcher import Fetcher, FetchLimits
from worker.hosts import HostRules
from worker.netguard import NetGuard
from worker.optout import OPT_OUT
from worker.politeness import HostGate
from worker.sandbox import Normaliser, SandboxLimits
from worker.settings import WorkerSettings
from worker.webhook_post import Poster


def database(settings: WorkerSettings, name: str) -> Database:
    """The database as the workers' role; `name` shows in pg_stat_activity."""
    return Database(
        settings.database_url,
        role=settings.database_role or WORKER_ROLE,
        pool_size=settings.database_pool,
        statement_timeout_ms=settings.statement_timeout_ms,
        application_name=f"tagmill {name}",
    )


def blobs(settings: WorkerSettings) -> Blobs:
    """The blob store that API, crawlers and workers share."""
    return open_blobs(settings)


def fetcher(settings: WorkerSettings) -> Fetcher:
    """The crawler's HTTP client behind the guard; to be entered."""
    guard = NetGuard(allow_cidrs=settings.allow_cidrs, deny_cidrs=settings.deny_cidrs, allow_ports=settings.allow_ports)
    limits = FetchLimits(
        total_s=settings.fetch_timeout_s,
        dns_s=settings.fetch_dns_s,
        connect_s=settings.fetch_connect_s,
        min_rate=settings.fetch_min_rate,
        max_bytes=settings.max_picture_bytes,
        max_redirects=settings.fetch_redirects,
        user_agent=settings.user_agent,
        opt_out=OPT_OUT if settings.honour_opt_out else frozenset(),
    )
    return Fetcher(guard, limits)


def gate(settings: WorkerSettings) -> HostGate:
    """The turns at every host; for the running event loop."""
    rules = HostRules(concurrency=settings.fetch_per_host, interval_s=settings.fetch_interval_s)
    return HostGate(rules, total=settings.fetch_concurrency)


def normaliser(settings: WorkerSettings) -> Normaliser:
    """The sandboxed processes; to be entered."""
    limits = SandboxLimits(
        max_bytes=settings.max_picture_bytes,
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        memory_bytes=settings.sandbox_memory_mb * 2**20,
        wall_s=settings.sandbox_wall_s,
        recycle_after=settings.sandbox_recycle,
    )
    return Normaliser(
        limits,
        workers=settings.sandbox_processes,
        short_side=settings.work_short_side,
        quality=settings.work_quality,
    )


def poster(settings: WorkerSettings) -> Poster:
    """The sender's HTTP client behind a guard of its own; to be entered.

    What the operator allows the crawler is not allowed here; what the crawler may never reach is closed here too.
    """
    guard = NetGuard(
        allow_cidrs=settings.webhook_cidrs, deny_cidrs=settings.deny_cidrs, allow_ports=settings.webhook_ports
    )
    return Poster(guard, Targets.of(settings), total_s=settings.webhook_timeout_s, user_agent=settings.user_agent)
