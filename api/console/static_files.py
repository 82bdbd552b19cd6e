"""The console's own scripts and styles. Their addresses change with their content, so browsers may keep them."""

from functools import cache
from importlib.resources import files
from typing import Final

from flask import Response, request

from api.console.pages import PageCall, Pages
from api.errors import Problem
from api.routing import Parameters

pages = Pages("static")
TYPES: Final = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
FOREVER: Final = "public, max-age=31536000, immutable"


class AssetQuery(Parameters):
    """`v` is the content's hash: nobody reads it, a browser's cache goes by it."""

    v: str | None = None


@cache
def _contents() -> dict[str, bytes]:
    folder = files("api.console").joinpath("static")
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name.rpartition(".")[2] in TYPES}


@pages.page("GET", "/console/static/<name>", role=None, query=AssetQuery, asset=True)
def read(call: PageCall, name: str, query: AssetQuery) -> Response:
    """A file by its name: no path leads anywhere."""
    content = _contents().get(name)
    if content is None:
        raise Problem("not_found", "There is no such file.")
    headers = {"Cache-Control": FOREVER if query.v else "no-cache", "Cross-Origin-Resource-Policy": "same-origin"}
    response = Response(content, content_type=TYPES[name.rpartition(".")[2]], headers=headers)
    response.add_etag()
    response.make_conditional(request)
    return response
