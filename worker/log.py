"""Log lines of the worker roles: one event a line, fields beside it; it decides nothing about what is worth logging."""

import logging
import sys
import time

import structlog
from structlog.typing import FilteringBoundLogger, Processor


def configure(form: str = "console", *, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's loggers (Celery's, aiohttp's) to stderr in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("celery.worker.strategy", "celery.app.trace", "kombu", "aiohttp.access", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def get(role: str) -> FilteringBoundLogger:
    """A logger that names its role on every line."""
    logger: FilteringBoundLogger = structlog.get_logger("tagmill").bind(role=role)
    return logger


class Throttle:
    """Lets one line through per `seconds`, and counts those it held back."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.held = 0
        self._next = 0.0

    def ready(self, now: float | None = None) -> bool:
        """True if a line may be written now (`now`: any monotonic clock)."""
        now = time.monotonic() if now is None else now
        if now < self._next:
            self.held += 1
            return False
        self._next = now + self.seconds
        return True

    def reset(self) -> None:
        """Forget the pause: the trouble is over, and the next one is news."""
        self._next = 0.0
        self.held = 0
