"""What another account may see of each route, and what is sent to it: for the tests that go over the route table."""

from collections.abc import Callable
from typing import Any

from tests.abuse.estate import ELSE, SINCE, Estate

# What is the same for every account, and why.
INSTALLATION = {
    "GET /metrics": "sums over all accounts, behind a scope of operators",
    "POST /v1/training-runs": "models belong to the installation",
    "GET /v1/training-runs": "models belong to the installation",
    "GET /v1/training-runs/<uuid:run_id>": "models belong to the installation",
    "GET /v1/training-runs/<uuid:run_id>/log": "models belong to the installation",
    "POST /v1/training-runs/<uuid:run_id>/cancel": "models belong to the installation",
    "GET /v1/policy-schema": "a file",
}
# Lists and figures: those of another account do not stand in them. True: the owner finds an own id there.
LISTS = {
    "GET /v1/jobs": True,
    "GET /v1/moderations": True,
    "GET /v1/policies": True,
    "GET /v1/replays": True,
    "GET /v1/webhooks": True,
    "GET /v1/appeals": True,
    "GET /v1/audit": True,
    "GET /v1/reviews": True,
    "GET /v1/reviews/gold": True,
    "GET /v1/banks": True,
    "GET /v1/erasures": True,
    "GET /v1/account": False,
    "GET /v1/drift": False,
    "GET /v1/policy-assignments": False,
    "GET /v1/audit/verify": False,
    "GET /v1/reviews/quality": False,
    "GET /v1/reviews/exposure": False,
}
# Routes that make something of the asker's own out of nothing.
MAKING = {"POST /v1/policies", "POST /v1/policies/validate", "POST /v1/webhooks", "POST /v1/banks"}
Refers = Callable[[Estate], tuple[str, Any]]
# Routes whose query or body names something: the address and the body, with the other account's ids.
REFERRING: dict[str, Refers] = {
    "POST /v1/jobs": lambda e: (
        "/v1/jobs",
        {"items": [{"url": "http://a.test/"}], "policy": e.at["policy_name"]},
    ),
    "POST /v1/moderations": lambda e: ("/v1/moderations", {"url": "http://a.test/", "policy": e.at["policy_name"]}),
    "POST /v1/labels": lambda e: ("/v1/labels", {"labels": [{"item_id": e.items[2], "groups": {"category": "Dress"}}]}),
    "POST /v1/replays": lambda e: ("/v1/replays", {"since": SINCE, "policy": e.at["policy_name"]}),
    "PUT /v1/policy-assignments": lambda e: ("/v1/policy-assignments", {"policy": e.at["policy_name"]}),
    "POST /v1/reviews/claim": lambda e: ("/v1/reviews/claim", {"count": 100, "curator": True}),
    "POST /v1/reviews/decide": lambda e: (
        "/v1/reviews/decide",
        {"decisions": [{"id": e.at["review_id"], "version": e.review_version, "verdict": "approve"}]},
    ),
    "POST /v1/reviews/undo": lambda e: ("/v1/reviews/undo", {"ids": [e.at["review_id"]]}),
    "POST /v1/reviews/gold": lambda e: ("/v1/reviews/gold", {"item_id": e.items[1], "verdict": "reject"}),
    "POST /v1/erasures": lambda e: ("/v1/erasures", {"kind": "item", "target": e.items[0]}),
    "GET /v1/banks/look-up": lambda e: (f"/v1/banks/look-up?item_id={e.items[0]}", None),
}
# What these say of a thing that is not there, where it is not 404.
SOFT = {
    "POST /v1/jobs": 422,
    "POST /v1/moderations": 422,
    "POST /v1/labels": 200,
    "POST /v1/reviews/claim": 200,
    "POST /v1/reviews/decide": 200,
}
# These know only what the very key that asks has done itself: nothing, here.
OWN_DOING = {"POST /v1/reviews/<uuid:review_id>/undo"}
BODIES: dict[str, Any] = {
    "PUT /v1/items/<item_id>/labels": {"json": {"groups": {"category": "Dress"}}},
    "PATCH /v1/webhooks/<uuid:webhook_id>": {"json": {"enabled": False}},
    "POST /v1/webhooks/<uuid:webhook_id>/redeliver": {"json": {"since": SINCE}},
    "POST /v1/items/<item_id>/appeals": {"json": {"text": "It is a dress."}},
    "POST /v1/moderations/<uuid:moderation_id>/appeals": {"json": {"text": "It is a dress."}},
    "POST /v1/reviews/<uuid:review_id>/decide": {"json": {"version": 1, "verdict": "approve"}},
    "POST /v1/reviews/<uuid:review_id>/escalate": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/skip": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/release": {"json": {"version": 1}},
    "POST /v1/reviews/<uuid:review_id>/comment": {"json": {"text": "Look."}},
    "PATCH /v1/banks/<uuid:bank_id>": {"json": {"enabled": False}},
    "POST /v1/banks/<uuid:bank_id>/entries": {"json": {"pdq": ELSE}},
    "PATCH /v1/banks/<uuid:bank_id>/entries/<uuid:entry_id>": {"json": {"enabled": False}},
    "POST /v1/banks/<uuid:bank_id>/import": {"data": f"pdq\n{ELSE}\n", "content_type": "text/csv"},
}
