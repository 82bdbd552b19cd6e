"""The registry: activation through the gate, rollback, retirement, lineage, and what the audit log keeps of it."""

import threading
from typing import Any

import pytest
from sqlalchemy import text

from db import evaluations, registry
from db.errors import Conflict, NotFound, PromotionRefused
from db.promotion import Margins, margins, shortfalls
from db.session import Database


def install(
    db: Database, version: str, *, task: str = "tags", parent: str | None = None, trained_on: str | None = None
) -> int:
    card = {"name": f"m-{task}", "version": version, "task": task, "parent": parent, "data_manifest_sha256": trained_on}
    with db.transaction() as session:
        return registry.install_model(session, card, version[0] * 64).id


def activate(db: Database, version: str, **how: Any) -> str:
    with db.transaction() as session:
        return registry.activate(session, "m-tags", version, **how).ref


def states(db: Database) -> dict[str, str]:
    with db.transaction() as session:
        return {model.version: model.state for model in registry.list_models(session)}


def evaluate(
    db: Database, model_id: int, *, data: str = "d", split: str = "test", pixels: str = "working copy", **metrics: float
) -> None:
    """On the dataset `data`@1, made at the first call."""
    with db.transaction() as session:
        session.execute(
            text(
                "INSERT INTO datasets (name, version, sha256, manifest_key, images_root, entries)"
                " VALUES (:name, '1', :sha, 'k', '/', 9) ON CONFLICT DO NOTHING"
            ),
            {"name": data, "sha": data * 64},
        )
        dataset = session.execute(text("SELECT id FROM datasets WHERE name = :name"), {"name": data}).scalar_one()
        named = {name.replace("__", "/"): value for name, value in metrics.items()}
        report = {"about": {"pixels": pixels}}
        evaluations.record(session, model_id, dataset, split, images=9, metrics=named, report=report)


def gate(db: Database, version: str) -> str:
    with db.transaction() as session:
        model = registry.by_ref(session, f"m-tags@{version}")
        return str(registry.gate(session, model, registry.active(session, "tags")))


def audited(db: Database) -> list[tuple[str, str, dict[str, Any]]]:
    with db.transaction() as session:
        rows = session.execute(text("SELECT action, subject, detail FROM audit_log ORDER BY id"))
        return [tuple(row) for row in rows]


def test_rollback_goes_back_step_by_step_and_forward_again(db: Database) -> None:
    for version in "abc":
        install(db, version)
        activate(db, version)
    assert states(db) == {"a": "retired", "b": "retired", "c": "active"}
    for left, now in (("c", "b"), ("b", "a")):
        with db.transaction() as session:
            gone, back = registry.rollback(session, "tags")
            assert (gone.version, back.version) == (left, now)
    assert states(db) == {"a": "active", "b": "retired", "c": "retired"}
    with pytest.raises(Conflict, match="replaced no other"), db.transaction() as session:
        registry.rollback(session, "tags")
    activate(db, "c")
    with db.transaction() as session:
        assert registry.rollback(session, "tags")[1].version == "a", "from c back to what c replaced last"
    assert [entry[0] for entry in audited(db)].count("model.rollback") == 3


def test_rollback_of_one_task_leaves_the_other(db: Database) -> None:
    install(db, "a")
    install(db, "b", task="moderation")
    activate(db, "a")
    with pytest.raises(Conflict, match="No model is active"), db.transaction() as session:
        registry.rollback(session, "moderation")
    assert states(db) == {"a": "active", "b": "candidate"}


def test_activating_the_active_version_changes_nothing(db: Database) -> None:
    install(db, "a")
    install(db, "b")
    activate(db, "a")
    activate(db, "b")
    activate(db, "b")
    with db.transaction() as session:
        assert registry.rollback(session, "tags")[1].version == "a"


def test_retire_takes_a_candidate_out_and_spares_the_active_one(db: Database) -> None:
    install(db, "a")
    install(db, "b")
    activate(db, "a")
    with db.transaction() as session:
        assert registry.retire(session, "m-tags", "b").state == "retired"
        assert registry.retire(session, "m-tags", "b").state == "retired"
    with pytest.raises(Conflict, match="is active"), db.transaction() as session:
        registry.retire(session, "m-tags", "a")
    with pytest.raises(NotFound), db.transaction() as session:
        registry.retire(session, "m-tags", "z")
    assert [entry[:2] for entry in audited(db)] == [("model.activate", "m-tags@a"), ("model.retire", "m-tags@b")]


def test_the_gate_refuses_what_falls_behind_and_says_in_what(db: Database) -> None:
    evaluate(db, install(db, "a"), overall__top1=0.91, label__shirt__f1=0.90, slice__kids=0.80)
    evaluate(db, install(db, "b"), overall__top1=0.92, label__shirt__f1=0.70, slice__kids=0.76)
    activate(db, "a")
    with pytest.raises(PromotionRefused) as refused:
        activate(db, "b")
    assert [str(each).partition(":")[0] for each in refused.value.shortfalls] == ["label/shirt/f1"]
    assert states(db) == {"a": "active", "b": "candidate"}
    assert activate(db, "b", margins=Margins(label=0.25)) == "m-tags@b"


def test_a_forced_activation_needs_a_reason_and_leaves_it_in_the_log(db: Database) -> None:
    evaluate(db, install(db, "a"), overall__top1=0.91)
    install(db, "b")
    activate(db, "a")
    with pytest.raises(PromotionRefused, match="was measured on d@1 test and this version was not"):
        activate(db, "b")
    activate(db, "b", forced="the old one fails on new cameras", actor="ada")
    action, subject, detail = audited(db)[-1]
    assert (action, subject, detail["forced"]) == ("model.activate", "m-tags@b", "the old one fails on new cameras")
    assert detail["shortfalls"] == [
        {"metric": "overall/top1", "active": 0.91, "candidate": None, "margin": 0.01, "data": "d@1 test"}
    ]


def test_the_newest_evaluation_speaks(db: Database) -> None:
    first = install(db, "a")
    evaluate(db, first, overall__top1=0.99)
    evaluate(db, first, overall__top1=0.80)
    evaluate(db, install(db, "b"), overall__top1=0.85)
    activate(db, "a")
    assert activate(db, "b") == "m-tags@b"


def test_a_candidate_is_judged_on_all_data_that_both_were_measured_on(db: Database) -> None:
    """Being measured on something easier last does not hide what was seen before."""
    first, second = install(db, "a"), install(db, "b")
    for model, easy, hard in ((first, 0.95, 0.90), (second, 0.99, 0.70)):
        evaluate(db, model, data="d", overall__top1=hard)
        evaluate(db, model, data="e", overall__top1=easy)
    activate(db, "a")
    with pytest.raises(PromotionRefused) as refused:
        activate(db, "b")
    assert [(short.metric, short.data) for short in refused.value.shortfalls] == [("overall/top1", "d@1 test")]
    assert gate(db, "b") == "closed: behind m-tags@a in 1 of 2 metrics (1 on e@1 test, 1 on d@1 test)"


def test_originals_are_not_compared_with_working_copies(db: Database) -> None:
    evaluate(db, install(db, "a"), overall__top1=0.90)
    candidate = install(db, "b")
    activate(db, "a")
    evaluate(db, candidate, pixels="original", overall__top1=0.99)
    with pytest.raises(PromotionRefused, match="this version was not"):
        activate(db, "b")
    evaluate(db, candidate, overall__top1=0.91)
    evaluate(db, candidate, pixels="original", overall__top1=0.10)
    assert activate(db, "b") == "m-tags@b"


def test_the_pictures_that_a_model_was_trained_on_say_nothing_of_it(db: Database) -> None:
    evaluate(db, install(db, "a"), split="train", overall__top1=0.90)
    candidate = install(db, "b", trained_on="d" * 64)
    evaluate(db, candidate, split="train", overall__top1=1.0)
    activate(db, "a")
    with pytest.raises(PromotionRefused, match="this version was not"):
        activate(db, "b")
    other = install(db, "c", trained_on="e" * 64)
    evaluate(db, other, split="train", overall__top1=0.95)
    assert activate(db, "c") == "m-tags@c", "a set of pictures without splits is all named train"


def test_an_open_gate_says_why(db: Database) -> None:
    for version in "abc":
        install(db, version)
    assert gate(db, "a") == "open: no version is active, so nothing was compared"
    activate(db, "a")
    assert gate(db, "b") == "open: m-tags@a was never evaluated, so nothing was compared"
    with db.transaction() as session:
        first, second = (registry.by_ref(session, f"m-tags@{version}").id for version in "ab")
    for model in (first, second):
        evaluate(db, model, overall__top1=0.9, label__shirt__f1=0.8, other__thing=1.0)
    assert gate(db, "b") == "open: not behind m-tags@a in any of 2 metrics (2 on d@1 test)"
    assert gate(db, "c").startswith("closed: m-tags@a was measured on d@1 test and this version was not")
    activate(db, "b")
    assert audited(db)[-1][2]["gate"] == "open: not behind m-tags@a in any of 2 metrics (2 on d@1 test)"


def test_margins_are_read_and_refused_by_part() -> None:
    assert margins("") == Margins()
    assert margins("overall=0.02, slice=0.5") == Margins(overall=0.02, slice=0.5)
    for given, said in (("overall", "NAME=NUMBER"), ("f1=0.1", "overall, label or slice"), ("label=2", "0…1")):
        with pytest.raises(ValueError, match=said):
            margins(given)


def test_activations_at_once_leave_one_active_and_one_line_of_replacements(db: Database) -> None:
    versions = "abcdef"
    for version in versions:
        install(db, version)
    start = threading.Barrier(len(versions))

    def run(version: str) -> None:
        start.wait(timeout=30)
        activate(db, version)

    threads = [threading.Thread(target=run, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states(db).values()) == ["active"] + ["retired"] * 5
    seen = [version for version, state in states(db).items() if state == "active"]
    for _ in range(5):
        with db.transaction() as session:
            seen.append(registry.rollback(session, "tags")[1].version)
    assert sorted(seen) == list(versions), "each was replaced by exactly one other"


def test_lineage_follows_parents_and_ends_with_a_circle_or_a_stranger(db: Database) -> None:
    install(db, "a", parent="imagenet@1")
    install(db, "b", parent="m-tags@a")
    install(db, "c", parent="m-tags@b")
    install(db, "d", parent="m-tags@d")
    with db.transaction() as session:
        lines = {m.version: registry.lineage(session, m) for m in registry.list_models(session)}
    assert lines["c"] == ["m-tags@b", "m-tags@a", "imagenet@1"]
    assert lines["a"] == ["imagenet@1"]
    assert lines["d"] == ["m-tags@d"]


def test_shortfalls_judge_only_what_the_active_one_has() -> None:
    active = {"overall/f1": 0.9, "label/x/f1": 0.5, "images": 10.0}
    assert shortfalls(active, {"overall/f1": 0.89, "label/x/f1": 0.45, "label/new/f1": 0.0}) == []
    worst = shortfalls(active, {"overall/f1": 0.5})
    assert [each.metric for each in worst] == ["label/x/f1", "overall/f1"]
