"""The parts of the console, and how they join the app. A new part is one line here."""

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from api import errors
from api.console import (
    bank_forms,
    banks,
    catalog,
    gallery,
    home,
    jobs,
    models,
    own,
    persons,
    pictures,
    policies,
    replays,
    review,
    review_decide,
    review_quality,
    sign_in,
    static_files,
    submit,
    system,
    webhooks,
)
from api.console.pages import Pages, attach, nowhere
from api.console.rendering import navigation
from api.routing import House

PARTS: tuple[Pages, ...] = (
    static_files.pages,
    sign_in.pages,
    home.pages,
    jobs.pages,
    pictures.pages,
    review.pages,
    catalog.pages,
    system.pages,
    persons.pages,
    models.pages,
    policies.pages,
    banks.pages,
    replays.pages,
    webhooks.pages,
    own.pages,
)
# These add to the pages of the part that they belong to.
_ADDED = (bank_forms, gallery, submit, review_decide, review_quality)


def install(app: Flask, house: House) -> None:
    """Give every page its URL, and what is below /console and no page an answer of its own."""
    navigation([entry for part in PARTS for entry in part.nav])
    for part in PARTS:
        attach(app, part, house)

    def missing(error: HTTPException) -> Response:
        inside = request.path == "/console" or request.path.startswith("/console/")
        return nowhere(house, error) if inside else errors.of_werkzeug(error)

    for code in (NotFound, MethodNotAllowed):
        app.register_error_handler(code, missing)
