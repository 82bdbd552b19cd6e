"""The review queue over HTTP: claims, decisions, versions, pictures, figures, and what others may not see."""

import io
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import text

from db.blobs import LocalBlobs, work_key
from db.session import Database
from tests.api.conftest import Make, client_of, key_with
from tests.conftest import TestAccount
from tests.db.reviewing import sha_of, verdict, work_off

REVIEWER = ("reviews:read", "reviews:write")


@pytest.fixture
def ann(app: Flask, owner_db: Database, account: TestAccount) -> FlaskClient:
    """A reviewer: her key may review and nothing else."""
    return reviewer(app, owner_db, account)


def reviewer(app: Flask, owner_db: Database, account: TestAccount, *more: str) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = key_with(owner_db, account, *REVIEWER, *more)["Authorization"]
    return client


def in_doubt(db: Database, account: TestAccount, *which: str, **how: Any) -> None:
    work_off(db, account, {name: verdict("review", score=0.9 - n / 100) for n, name in enumerate(which)}, **how)


def claim(client: FlaskClient, count: int = 1, **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/reviews/claim", json={"count": count, **more})
    assert answer.status_code == 200, answer.text
    return list(answer.get_json()["reviews"])


def post(client: FlaskClient, review: dict[str, Any], what: str, **body: Any) -> Any:
    return client.post(f"/v1/reviews/{review['id']}/{what}", json=body)


def codes(answer: Any) -> tuple[int, str, list[tuple[str, str | None]]]:
    problem = answer.get_json()
    return answer.status_code, problem["code"], [(e["code"], e.get("field")) for e in problem["errors"]]


def test_claim_look_and_decide(ann: FlaskClient, client: FlaskClient, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("review", score=0.7)}, context="avatar", category="Hat")
    (review,) = claim(ann)
    assert review["item_id"] == f"{job.id.hex}-0"
    assert (review["reason"], review["context"], review["category"]) == ("porn_review", "avatar", "Hat")
    assert review["moderation"]["scores"] == {"Porn": 0.7}
    assert review["held_by"].startswith("key:")
    assert {code["code"] for code in review["codes"]} >= {"porn_reject"}, "reasons of the policy to choose from"
    assert claim(ann) == []
    assert ann.get(f"/v1/reviews/{review['id']}").get_json() == review
    answer = post(ann, review, "decide", version=review["version"], verdict="reject", code="nudity", text="No.")
    (ended,) = answer.get_json()["decided"]
    assert (ended["state"], ended["verdict"], ended["decided_by"]) == ("decided", "reject", review["held_by"])
    item = client.get(f"/v1/items/{review['item_id']}").get_json()
    assert item["moderation"]["verdict"] == "reject"
    assert item["moderation"]["automatic"] == "review"
    assert (item["moderation"]["decision"]["code"], item["moderation"]["decision"]["text"]) == ("nudity", "No.")
    assert [label["labels"] for label in item["labels"] if label["group"] == "verdict"] == [["reject"]]


def test_an_outdated_version_is_refused(ann: FlaskClient, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    (review,) = claim(ann)
    stale = post(ann, review, "decide", version=review["version"] - 1, verdict="approve")
    assert codes(stale) == (409, "stale_review", [])
    assert post(ann, review, "decide", version=review["version"], verdict="approve").status_code == 200
    for what in ("decide", "skip", "release", "escalate"):
        body = {"verdict": "approve"} if what == "decide" else {}
        again = post(ann, review, what, version=review["version"] + 1, **body)
        assert codes(again) == (409, "stale_review", []), what


def test_another_reviewers_review_is_stale_and_another_accounts_is_not_there(
    app: Flask, ann: FlaskClient, db: Database, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    in_doubt(db, account, "a")
    (review,) = claim(ann)
    bob = reviewer(app, owner_db, account)
    body = {"version": review["version"], "verdict": "approve"}
    assert post(bob, review, "decide", **body).status_code == 409
    stranger = client_of(app, other)
    assert claim(stranger) == []
    for what, sent in (("decide", body), ("skip", {"version": 1}), ("comment", {"text": "x"}), ("undo", {})):
        assert post(stranger, review, what, **sent).status_code == 404, what
    for path in ("", "/picture"):
        assert stranger.get(f"/v1/reviews/{review['id']}{path}").status_code == 404
    assert stranger.post(f"/v1/reviews/{review['id']}/picture").status_code == 404
    many = stranger.post("/v1/reviews/decide", json={"decisions": [{"id": review["id"], **body}]}).get_json()
    assert [refused["code"] for refused in many["refused"]] == ["not_found"]
    assert stranger.get("/v1/reviews").get_json() == {"reviews": [], "counts": [], "next": None}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"version": 2, "verdict": "reject"}, ("missing", "code")),
        ({"version": 2, "verdict": "maybe"}, ("invalid_value", "verdict")),
        ({"verdict": "approve"}, ("missing", "version")),
        ({"version": "2", "verdict": "approve"}, ("wrong_type", "version")),
        ({"version": 2, "verdict": "reject", "code": "Not Nice"}, ("bad_characters", "code")),
        ({"version": 2, "verdict": "approve", "text": "a\x00b"}, ("bad_characters", "text")),
        ({"version": 2, "verdict": "approve", "near": ["x"]}, ("invalid_value", "near.0")),
        ({"version": 2, "verdict": "approve", "who": "me"}, ("unknown_field", "who")),
    ],
)
def test_bad_bodies_name_the_field(
    ann: FlaskClient, db: Database, account: TestAccount, body: dict[str, Any], fault: tuple[str, str]
) -> None:
    in_doubt(db, account, "a")
    (review,) = claim(ann)
    status, code, faults = codes(post(ann, review, "decide", **body))
    assert (status, code) == (422, "invalid_body")
    assert faults[0][1] == fault[1]
    assert faults[0][0] == fault[0] or fault[1] == "near.0"


def test_many_decisions_and_their_undo(
    ann: FlaskClient, db: Database, owner_db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, *"abcd")
    held = claim(ann, 4)
    sent = [{"id": r["id"], "version": r["version"], "verdict": "reject", "code": "nudity"} for r in held]
    sent[2]["version"] += 1
    del sent[3]["code"]
    assert codes(ann.post("/v1/reviews/decide", json={"decisions": sent}))[1:] == (
        "invalid_body",
        [("missing", "code")],
    )
    made = ann.post("/v1/reviews/decide", json={"decisions": sent[:3]}).get_json()
    assert {review["item_id"] for review in made["decided"]} == {held[0]["item_id"], held[1]["item_id"]}
    assert [(refused["id"], refused["code"]) for refused in made["refused"]] == [(held[2]["id"], "stale_review")]
    undone = ann.post("/v1/reviews/undo", json={}).get_json()["reviews"]
    assert {review["id"] for review in undone} == {held[0]["id"], held[1]["id"]}
    assert ann.post("/v1/reviews/undo").get_json() == {"reviews": []}
    assert post(ann, held[0], "undo").status_code == 404


def test_moves_comments_and_curators(
    app: Flask, ann: FlaskClient, db: Database, owner_db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, *"abc")
    skipped, released, hard = claim(ann, 3)
    assert post(ann, skipped, "skip", version=skipped["version"]).get_json()["held_by"] is None
    assert post(ann, released, "release", version=released["version"]).status_code == 200
    answer = post(ann, hard, "escalate", version=hard["version"], comment="<b>what</b> is it?")
    assert (answer.get_json()["level"], answer.get_json()["held_by"]) == ("curator", None)
    assert [review["id"] for review in claim(ann, 9)] == [released["id"]]
    assert codes(ann.post("/v1/reviews/claim", json={"curator": True}))[:2] == (403, "missing_scope")
    curator = reviewer(app, owner_db, account, "policies:read", "policies:write")
    first, *_ = claim(curator, 9, curator=True)
    assert first["id"] == hard["id"]
    assert [comment["text"] for comment in first["comments"]] == ["<b>what</b> is it?"]
    noted = post(ann, hard, "comment", text="a lamp").get_json()
    assert [comment["text"] for comment in noted["comments"]] == ["<b>what</b> is it?", "a lamp"]
    again = post(curator, first, "escalate", version=first["version"])
    assert codes(again)[:2] == (409, "conflict")


def test_audits_are_blind(ann: FlaskClient, db: Database, account: TestAccount) -> None:
    work_off(db, account, {"a": verdict("reject", "porn_reject", 0.99)}, audit_share=1.0)
    (review,) = claim(ann, reason="audit")
    assert review["moderation"] is None
    assert "0.99" not in str(review)
    assert "audit_verdict" not in review


def test_near_duplicates_are_shown_and_decided_together(
    ann: FlaskClient, client: FlaskClient, db: Database, account: TestAccount
) -> None:
    base = bytes(range(32))
    in_doubt(db, account, "a", "b", "c", pdq={"a": base, "b": bytes([base[0] ^ 0x1F, *base[1:]]), "c": bytes(32)})
    (review,) = claim(ann)
    (near,) = review["near"]
    assert near["distance"] == 5
    answer = post(ann, review, "decide", version=review["version"], verdict="approve", near=[near["id"]]).get_json()
    assert [ended["id"] for ended in answer["decided"]] == [review["id"], near["id"]]
    assert client.get(f"/v1/items/{near['item_id']}").get_json()["moderation"]["verdict"] == "approve"
    assert len(claim(ann, 9)) == 1


def test_lists_counts_filters_and_pages(ann: FlaskClient, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, *"abc", context="avatar", category="Hat")
    work_off(db, account, {"d": verdict("review", "hentai_review")})
    claim(ann)
    page = ann.get("/v1/reviews?limit=3").get_json()
    rest = ann.get(f"/v1/reviews?limit=3&cursor={page['next']}").get_json()
    assert (len(page["reviews"]), len(rest["reviews"]), rest["next"]) == (3, 1, None)
    assert len({review["id"] for review in page["reviews"] + rest["reviews"]}) == 4
    assert sum(count["open"] for count in page["counts"]) == 4
    assert {(c["reason"], c["context"], c["open"]) for c in page["counts"]} == {
        ("porn_review", "avatar", 3),
        ("hentai_review", "", 1),
    }
    assert [r["reason"] for r in ann.get("/v1/reviews?context=").get_json()["reviews"]] == ["hentai_review"]
    assert len(ann.get("/v1/reviews?category=Hat&policy=default").get_json()["reviews"]) == 3
    assert ann.get("/v1/reviews?state=decided").get_json()["reviews"] == []
    assert codes(ann.get("/v1/reviews?cursor=xx"))[1] == "invalid_cursor"
    assert codes(ann.get("/v1/reviews?state=gone"))[1] == "invalid_parameter"


def test_known_answers_are_for_curators(
    app: Flask, make_app: Make, ann: FlaskClient, db: Database, owner_db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {"gold": verdict("approve"), "a": verdict("review")})
    curator = reviewer(app, owner_db, account, "policies:read", "policies:write")
    sent = {"item_id": f"{job.id.hex}-0", "verdict": "reject"}
    for refused in (ann.post("/v1/reviews/gold", json=sent), ann.get("/v1/reviews/gold")):
        assert codes(refused)[:2] == (403, "missing_scope")
    made = curator.post("/v1/reviews/gold", json=sent)
    assert made.status_code == 201
    assert [each["id"] for each in curator.get("/v1/reviews/gold").get_json()["gold"]] == [made.get_json()["id"]]
    assert curator.post("/v1/reviews/gold", json={**sent, "item_id": "x"}).status_code == 404
    bob = reviewer(make_app(review_gold_share=1.0), owner_db, account)
    (review,) = claim(bob)
    assert review["item_id"] == sent["item_id"]
    assert set(review) == set(claim(ann)[0]), "nothing tells it from another one"
    answer = post(bob, review, "decide", version=review["version"], verdict="approve").get_json()
    assert answer["decided"][0]["state"] == "decided"
    assert ann.get(f"/v1/reviews/{review['id']}").status_code == 404
    assert curator.delete(f"/v1/reviews/gold/{made.get_json()['id']}").status_code == 204
    assert curator.delete(f"/v1/reviews/gold/{made.get_json()['id']}").status_code == 404
    who = {each["actor"]: each for each in ann.get("/v1/reviews/quality").get_json()["reviewers"]}
    (bobs,) = who.values()
    assert (bobs["gold"]["value"], bobs["gold"]["n"], bobs["answers"]) == (0.0, 1, 0)


def test_figures_of_quality(ann: FlaskClient, db: Database, account: TestAccount) -> None:
    work_off(db, account, {f"p{n}": verdict("approve") for n in range(10)}, audit_share=1.0)
    for review in claim(ann, 10):
        wrong = review["item_id"].endswith("-0")
        body = {"verdict": "reject", "code": "nudity"} if wrong else {"verdict": "approve"}
        post(ann, review, "decide", version=review["version"], **body)
    found = ann.get("/v1/reviews/quality").get_json()
    missed = found["automation"]["missed"]
    assert (missed["value"], missed["n"]) == (0.1, 10)
    assert missed["low"] < 0.1 < missed["high"]
    assert found["automation"]["recall"]["value"] == 0.0
    assert found["automation"]["precision"] == {"value": None, "low": None, "high": None, "n": 0}
    assert [each["answers"] for each in found["reviewers"]] == [10, 10], "in all, and in this week"
    later = ann.get("/v1/reviews/quality?since=2999-01-01T00:00:00Z").get_json()
    assert later["automation"]["strata"][0]["drawn"] == 0
    bad = ann.get("/v1/reviews/quality?since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z")
    assert codes(bad) == (400, "invalid_parameter", [("invalid_value", "until")])
    assert codes(ann.get("/v1/reviews/quality?since=2026-02-01"))[1] == "invalid_parameter"


def picture_of(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body)).convert("RGB")


def test_pictures_are_veiled_until_asked_for_and_then_counted(
    make_app: Make, db: Database, owner_db: Database, account: TestAccount, tmp_path: Path
) -> None:
    in_doubt(db, account, "a", "b")
    stripes = Image.new("RGB", (640, 480), "red")
    stripes.paste("blue", (0, 0, 320, 480))
    out = io.BytesIO()
    stripes.save(out, "JPEG")
    for name in ("a", "b"):
        LocalBlobs(tmp_path / "blobs").put(work_key(account.id, sha_of(name)), out.getvalue())
    ann = reviewer(make_app(review_exposure_limit=1), owner_db, account)
    one, two = claim(ann, 2)
    veiled = ann.get(f"/v1/reviews/{one['id']}/picture")
    assert (veiled.content_type, veiled.headers["X-Content-Type-Options"]) == ("image/jpeg", "nosniff")
    red, green, blue = picture_of(veiled.data).getpixel((400, 100))  # type: ignore[misc]
    assert max(red, green, blue) - min(red, green, blue) < 8, "grey"
    assert ann.get("/v1/reviews/exposure").get_json()["days"] == [], "a veiled picture does not count"
    kept = tmp_path / "blobs" / work_key(account.id, sha_of("a"))
    kept.rename(tmp_path / "away")
    assert codes(ann.post(f"/v1/reviews/{one['id']}/picture"))[:2] == (404, "not_found")
    assert ann.get("/v1/reviews/exposure").get_json()["days"] == [], "a picture that is gone was not seen"
    (tmp_path / "away").rename(kept)
    for _ in range(2):
        clear = ann.post(f"/v1/reviews/{one['id']}/picture")
        assert clear.status_code == 200
    red, green, blue = picture_of(clear.data).getpixel((400, 100))  # type: ignore[misc]
    assert red > 200 > blue
    assert codes(ann.post(f"/v1/reviews/{two['id']}/picture"))[:2] == (429, "exposure_limit")
    (day,) = ann.get("/v1/reviews/exposure").get_json()["days"]
    assert (day["actor"], day["verdict"], day["main_class"], day["pictures"], day["shown"]) == (
        one["held_by"],
        "review",
        "Porn",
        1,
        2,
    )
    with owner_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM review_exposures")) == 1
