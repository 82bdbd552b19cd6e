"""The console's first page: where the work of whoever signed in begins."""

from flask import Response

from api.console.pages import PageCall, Pages
from api.console.rendering import navigation_of, redirect

pages = Pages("home")


@pages.page("GET", "/console", role="viewer")
def index(call: PageCall) -> Response:
    """To the first page of the navigation."""
    return redirect(call, next((entry.href for entry in navigation_of(call)), "/console/own"))
