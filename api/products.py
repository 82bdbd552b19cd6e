"""The catalog's view of a product. Combining is `db.products`' business."""

from dataclasses import asdict

from flask import Response

from api.answers import json_answer
from api.product_schemas import ProductOut
from api.routing import Answer, Call, Routes
from api.schemas import MAX_ID
from db import products
from db.errors import NotFound

routes = Routes("catalog", "What a product's pictures say together.")


@routes.route(
    "GET",
    "/v1/products/<path:product_id>",
    scope="catalog:read",
    summary="Read a product",
    answers={200: Answer("The product.", ProductOut)},
    errors=("not_found",),
)
def read(call: Call, product_id: str) -> Response:
    """The tags of the product's pictures combined, each with the pictures it comes from."""
    if len(product_id) > MAX_ID or not product_id.isprintable():
        raise NotFound("No item names this product.")
    with call.transaction() as session:
        view = products.view(session, call.account_id, product_id)
    return json_answer(asdict(view))
