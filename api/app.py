"""Wires the Flask app: settings, database, blob store, routes, error handlers, headers. Does nothing else."""

import re
import time
from importlib.metadata import version

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry

from api import (
    account,
    appeals,
    audit,
    bank_entries,
    bank_lists,
    banks,
    deliveries,
    docs,
    drift,
    erasures,
    errors,
    events,
    health,
    items,
    jobs,
    labels,
    metrics,
    moderations,
    openapi,
    policies,
    products,
    replays,
    results,
    review_figures,
    review_moves,
    reviews,
    submit,
    training,
    webhooks,
)
from api.auth import rate_headers
from api.console import parts
from api.routing import House, Routes, attach
from api.seats import Seats
from api.settings import ApiSettings
from db.blob_store import open_blobs
from db.ids import uuid7
from db.session import API_ROLE, Database

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The modules of `_ADDED` add to the routes of the resource they belong to.
ROUTES: tuple[Routes, ...] = (
    *(jobs.routes, items.routes, labels.routes, products.routes, drift.routes, training.routes, health.routes),
    *(moderations.routes, policies.routes, replays.routes, webhooks.routes),
    *(appeals.routes, audit.routes, reviews.routes, banks.routes, erasures.routes),
    account.routes,
)
_ADDED = (submit, events, results, deliveries, review_moves, review_figures, bank_entries, bank_lists)


def create_app(settings: ApiSettings | None = None) -> Flask:
    """The WSGI application."""
    settings = settings or ApiSettings()
    app = Flask("api", static_folder=None, template_folder="templates")
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = 1 << 20
    registry = CollectorRegistry()
    house = House(
        settings=settings,
        database=Database(
            settings.database_url,
            role=settings.database_role or API_ROLE,
            pool_size=settings.database_pool,
            statement_timeout_ms=settings.statement_timeout_ms,
            application_name="tagmill-api",
        ),
        blobs=open_blobs(settings),
        seats=Seats(settings.max_streams, settings.max_streams_per_account),
        waits=Seats(settings.max_waits, settings.max_waits_per_account),
        registry=registry,
    )
    app.extensions["tagmill"] = house
    described = openapi.document((*ROUTES, docs.routes), version=version("tagmill"), server=settings.public_url)
    house.description.update(described)
    for routes in (*ROUTES, docs.routes):
        attach(app, routes, house)
    errors.install(app)
    parts.install(app, house)
    _observe(app, metrics.requests(registry))
    return app


def _observe(app: Flask, counted: metrics.Requests) -> None:
    """An id, security headers and counters for every request."""

    @app.before_request
    def begin() -> None:
        g.began = time.monotonic()
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid7().hex

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        if (rate := g.get("rate")) is not None:
            response.headers.update(rate_headers(rate))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        route = request.url_rule.rule if request.url_rule is not None else "none"
        method = request.method if request.method in ("GET", "HEAD", "POST") else "other"
        counted.total.labels(method, route, str(response.status_code)).inc()
        counted.seconds.labels(method, route).observe(time.monotonic() - g.began)
        return response
