"""The Celery application and the checks a worker makes before it starts; it holds no task and does no work.

Celery only wakes workers: a message is a hint, Postgres is the queue. So everything that makes Celery durable is off
(late ack, results, events, remote control), and what keeps it from going deaf is on (socket timeouts, keepalive).
"""

import sys
import warnings
from typing import Any
from urllib.parse import urlsplit

import redis
from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.signals import celeryd_after_setup
from kombu.entity import Queue

from worker import log
from worker.settings import WorkerSettings

QUEUE = "infer"
INFER_TASK = "tagmill.infer"
CANARY_TASK = "tagmill.canary"
KEY_PREFIX = "tagmill:"
SCHEMA_VERSION = 1  # of the hint {"chunk_id", "v"}: a worker leaves other versions alone
BRPOP_TIMEOUT_S = 1  # kombu's own; a socket timeout below it would cut every wait for a message


class BrokerRefused(RuntimeError):
    """The broker or its settings would lose messages or make workers deaf; the message says the remedy."""

    code = "broker_refused"


def transport_options() -> dict[str, Any]:
    """Options of every connection to the broker, of workers and dispatchers alike."""
    return {
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "retry_on_timeout": True,
        "global_keyprefix": KEY_PREFIX,
    }


def configuration(settings: WorkerSettings) -> dict[str, Any]:
    """Celery's settings; each differs from Celery's default for a reason given in docs/operations.md."""
    soft = int(settings.infer_budget_s + settings.model_load_s + 240)
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": transport_options(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Nothing is acknowledged: a hint may be lost, and an acknowledgement that fails (the broker away at that very
        # moment) would count as a message in hand for ever: the worker would take no other.
        "task_queues": [Queue(QUEUE, no_ack=True)],  # type: ignore[no-untyped-call]
        "task_default_queue": QUEUE,
        "task_acks_late": False,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_publish_retry": False,
        "task_time_limit": soft + 60,
        "task_soft_time_limit": soft,
        "worker_pool": "prefork",
        "worker_pool_start_method": "spawn",
        "worker_concurrency": len(settings.devices),
        "worker_proc_alive_timeout": 180,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_max_tasks_per_child": 2000,
        "worker_max_memory_per_child": settings.child_memory_mb * 1024,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
    }


def create_app(settings: WorkerSettings) -> Celery:
    """A Celery application that knows the tasks by name; imports no torch."""
    return Celery("tagmill", include=["worker.tasks"], changes=configuration(settings))


def check_configuration(config: dict[str, Any]) -> None:
    """Refuse settings under which a worker can go deaf without a word or run what it should not.

    Without `socket_timeout` a half-open connection makes a worker wait for ever: measured 0 of 30 messages consumed.
    """
    timeout = config.get("broker_transport_options", {}).get("socket_timeout")
    if not timeout or timeout <= BRPOP_TIMEOUT_S:
        raise BrokerRefused(
            f"broker_transport_options.socket_timeout is {timeout!r}: set it above {BRPOP_TIMEOUT_S} s, "
            "else a half-open connection makes workers deaf for ever"
        )
    if config.get("accept_content") != ["json"]:
        raise BrokerRefused("accept_content must be ['json']: any other content can run code")
    queues = config.get("task_queues")
    if not queues or not all(queue.no_ack for queue in queues):
        raise BrokerRefused(
            "task_queues must be without acknowledgements (no_ack): one that fails while the broker is away counts as "
            "a message in hand for ever"
        )
    if config.get("task_acks_late"):
        raise BrokerRefused("task_acks_late must be off: redelivery would run chunks twice, the reaper does it once")


def connect(broker_url: str) -> "redis.Redis":
    """A plain client of the broker, with the same timeouts as Celery's connections."""
    return redis.Redis.from_url(
        broker_url,
        socket_timeout=15,
        socket_connect_timeout=5,
        socket_keepalive=True,
        health_check_interval=10,
    )


def check_broker(broker_url: str) -> None:
    """Refuse a broker that may evict messages. Raises BrokerRefused, or redis.RedisError when it cannot be asked."""
    with connect(broker_url) as client:
        memory: Any = client.info("memory")
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        where = urlsplit(broker_url)
        raise BrokerRefused(
            f"the broker at {where.hostname}:{where.port} runs with maxmemory-policy {policy}: it may drop hints "
            "silently. Set `maxmemory-policy noeviction`, and never share it with a cache"
        )


def main(argv: list[str] | None = None) -> int:
    """Run a worker until SIGTERM: one prefork child per device, started as fresh interpreters."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    logger = log.get("worker")
    try:
        check_configuration(configuration(settings))
        check_broker(settings.broker_url)
    except BrokerRefused as error:
        logger.error("worker refused to start", code=error.code, reason=str(error))
        return 2
    except redis.RedisError as error:
        # not a reason to refuse: Celery waits for a broker that is only away
        logger.warning("broker not reachable yet", error=str(error))
    from worker import shadow_companion, watchdog  # after the checks: the watchdog connects Celery's signals

    application = create_app(settings)
    watchdog.start(settings)
    shadow_companion.start(settings)
    warnings.simplefilter("ignore", SecurityWarning)  # of root: it guards against pickle, and we take JSON only
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # of a setting that concerns late ack alone
    options = ["-Q", QUEUE, "-l", "info", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    started: list[Any] = []
    celeryd_after_setup.connect(lambda instance, **_: started.append(instance), weak=False)
    application.worker_main(["--quiet", "worker", *options, *(argv or [])])
    # Celery's main drops its exit code: a worker that could not go on would look like one that was stopped.
    return int(started[0].exitcode or 0) if started else 1


if __name__ == "__main__":
    from worker.app import main as start  # the module itself, not the copy named __main__

    sys.exit(start())
