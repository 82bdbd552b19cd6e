"""/openapi.json, and /docs: the same description as a page for people, rendered here, without a third-party host."""

import re
from importlib.resources import files
from typing import Any, Final

from flask import Response, render_template
from markupsafe import Markup, escape

from api.answers import json_answer
from api.errors import ERRORS, FAULTS
from api.routing import Answer, Call, Routes
from db.codes import CODES

routes = Routes("description", "This description, for programs and for people.")

PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "public, max-age=300",
}


@routes.route(
    "GET",
    "/openapi.json",
    scope=None,
    summary="OpenAPI document",
    answers={200: Answer("OpenAPI 3.1.", content={"application/json": {"type": "object"}})},
)
def openapi(call: Call) -> Response:
    """Everything on this page, for programs."""
    return json_answer(call.house.description, headers={"Cache-Control": "public, max-age=300"})


@routes.route(
    "GET", "/docs", scope=None, summary="Documentation", answers={200: Answer("HTML.", content={"text/html": {}})}
)
def page(call: Call) -> Response:
    """This page."""
    html = render_template(
        "docs.html",
        api=call.house.description,
        groups=_groups(call.house.description),
        errors=ERRORS,
        faults=FAULTS,
        codes=CODES,
        prose=prose,
        kind=kind,
    )
    return Response(html, content_type="text/html; charset=utf-8", headers=PAGE_HEADERS)


@routes.route(
    "GET",
    "/docs.css",
    scope=None,
    summary="Style of the page",
    answers={200: Answer("CSS.", content={"text/css": {"type": "string"}})},
)
def style(_: Call) -> Response:
    """The page's style sheet."""
    text = (files("api") / "static" / "docs.css").read_text()
    return Response(text, content_type="text/css; charset=utf-8", headers={"Cache-Control": "public, max-age=300"})


def _groups(api: dict[str, Any]) -> list[tuple[dict[str, Any], list[tuple[str, str, dict[str, Any]]]]]:
    """The operations by tag: (tag, [(method, path, operation)])."""
    every = [
        (method.upper(), path, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    return [(tag, [entry for entry in every if tag["name"] in entry[2]["tags"]]) for tag in api["tags"]]


def prose(text: str) -> Markup:
    """Our docstrings as HTML: paragraphs, `- ` lists and `code`, everything else escaped."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("- "):
            entries = [Markup("<li>{}</li>").format(_inline(entry)) for entry in block[2:].split("\n- ")]
            blocks.append(Markup("<ul>{}</ul>").format(Markup("").join(entries)))
        elif block:
            blocks.append(Markup("<p>{}</p>").format(_inline(block)))
    return Markup("\n").join(blocks)


def _inline(text: str) -> Markup:
    # Only the escaped text is marked safe, and only code tags of ours are put around parts of it.
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def kind(schema: dict[str, Any]) -> Markup:
    """A schema in a few words, with links to the shapes it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#shape-{0}">{0}</a>').format(name)
    if "anyOf" in schema:
        return Markup(" or ").join(kind(option) for option in schema["anyOf"])
    if "enum" in schema and len(schema["enum"]) <= 8:
        return Markup(", ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if schema.get("type") == "array":
        return Markup("list of {}").format(kind(schema.get("items", {})))
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("object of {}").format(kind(schema["additionalProperties"]))
    text = schema.get("format") or schema.get("type") or "any"
    limits = [
        f"{word} {schema[key]}"
        for key, word in (("minLength", "≥"), ("maxLength", "≤"), ("minimum", "≥"), ("maximum", "≤"))
        if key in schema
    ]
    return Markup("{}").format(" ".join([text, *limits]))
