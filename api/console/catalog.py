"""The catalog: products with their pictures, what these show together, where they disagree, and people's corrections.

A correction is a person's word on a label group of a picture (`db.labels`): it outranks the model and survives reruns.
"""

from typing import Any
from urllib.parse import urlencode

from flask import Response
from pydantic import Field

from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import redirect, render
from api.errors import Fault, Problem
from api.routing import Parameters
from db import catalog, erasure_fence, labels, products
from db.labels import BadLabels, Group
from db.products import ProductView
from db.session import Session

pages = Pages("catalog", Nav("Catalog", "/console/catalog", icon="catalog", role="viewer", order=40))
PAGE = 24
SHOWN = 4
MAX_PICTURES = 200


class CatalogQuery(Parameters):
    """Which products."""

    q: str = Field(default="", max_length=200)
    after: str | None = Field(default=None, max_length=500)


class ProductQuery(Parameters):
    """Which product."""

    id: str = Field(min_length=1, max_length=500)


@pages.page("GET", "/console/catalog", role="viewer", title="Catalog", query=CatalogQuery)
def index(call: PageCall, query: CatalogQuery) -> Response:
    """Products by their ids, with what their pictures show together."""
    with call.transaction() as session:
        ids = catalog.product_ids(session, call.account_id, begins=query.q, after=query.after, limit=PAGE + 1)
        found = [_summary(session, call, product_id) for product_id in ids[:PAGE]]
    more = None
    if len(ids) > PAGE:
        chosen = {"q": query.q} if query.q else {}
        more = "/console/catalog?" + urlencode({**chosen, "after": ids[PAGE - 1]})
    return render(call, "catalog.html", products=found, q=query.q, more=more, first=query.after is not None)


@pages.page("GET", "/console/catalog/product", role="viewer", title="Product", query=ProductQuery)
def show(call: PageCall, query: ProductQuery) -> Response:
    """One product. Its id is in the query, because ids are the shop's and may hold anything."""
    with call.transaction() as session:
        view = products.view(session, call.account_id, query.id)
        known = _known(session, call, view)
    groups = catalog.groups(view.pictures, known)
    return render(
        call,
        "product.html",
        title=view.product_id,
        product=view,
        groups=groups,
        conflicts=sum(group.conflict for group in groups),
        known=known,
    )


class CorrectionForm(Form):
    """What is in one picture, or in all pictures of a product. Without `labels` of an exclusive group, or with
    `back`: the model's word counts again."""

    product: str = Field(min_length=1, max_length=500)
    item: str | None = Field(default=None, max_length=100)
    group: str = Field(min_length=1, max_length=200)
    labels: list[str] = Field(default=[], max_length=1000)
    back: bool = False


@pages.page("POST", "/console/catalog/correct", role="curator")
def correct(call: PageCall) -> Response:
    """Say of a group what is in the picture, or in each picture of the product."""
    asked = call.checked(CorrectionForm)
    with call.transaction() as session:
        erasure_fence.share_lock(session, call.account_id)
        view = products.view(session, call.account_id, asked.product)
        known = _known(session, call, view)
        chosen = [
            picture["item_id"]
            for picture in view.pictures
            if picture["outcome"] == "done" and asked.item in (None, picture["item_id"])
        ]
        if not chosen:
            raise Problem("not_found", "The product has no such picture.")
        said = sum(_say(session, call, item_id, asked, known) for item_id in chosen)
    back = "/console/catalog/product?" + urlencode({"id": asked.product})
    many = "1 picture" if said == 1 else f"{said} pictures"
    return redirect(call, back, f"Noted for {many}." if said else "That was said already.", "good" if said else "note")


def _say(session: Session, call: PageCall, item_id: str, asked: CorrectionForm, known: dict[str, Group]) -> int:
    group = known.get(asked.group)
    exclusive = group is None or group.kind == "exclusive"
    value: Any = asked.labels[0] if exclusive and asked.labels else asked.labels
    if asked.back or (exclusive and not asked.labels):
        value = None
    if exclusive and len(asked.labels) > 1:
        raise Problem("invalid_form", "Exactly one label of this group holds.")
    try:
        words = labels.said({asked.group: value}, known)
    except BadLabels as error:
        faults = [Fault(fault.code, fault.detail, field=fault.group) for fault in error.faults]
        raise Problem("invalid_labels", "Nothing was taken.", faults) from error
    about = labels.subject(session, call.account_id, item_id)
    return labels.record(session, about, words, source="correction", actor=call.actor)


def _known(session: Session, call: PageCall, view: ProductView) -> dict[str, Group]:
    """The label groups of the model whose tags the product shows."""
    for picture in view.pictures:
        if picture["outcome"] == "done":
            return labels.vocabulary(session, labels.subject(session, call.account_id, picture["item_id"]).model)
    return {}


def _summary(session: Session, call: PageCall, product_id: str) -> dict[str, Any]:
    view = products.view(session, call.account_id, product_id)
    groups = catalog.groups(view.pictures, _known(session, call, view))
    return {
        "id": product_id,
        "href": "/console/catalog/product?" + urlencode({"id": product_id}),
        "pictures": len(view.pictures),
        "shown": [picture for picture in view.pictures if picture["outcome"] == "done"][:SHOWN],
        "tags": view.tags[:4],
        "verdict": view.verdict,
        "conflicts": sum(group.conflict for group in groups),
    }
