"""Shadow runs beside the line: results stay as they are, what two models differ in is counted right, bad candidates
harm nothing."""

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import registry, shadow, shadow_sample
from db.blobs import LocalBlobs
from db.ids import item_id, uuid7
from db.learning_tables import ShadowRun
from db.session import Database
from db.shadow import Limits
from ml.predictor import Predictor, Prepared
from ml.tiny import expected, make_tiny
from tests.conftest import TestAccount
from tests.worker.line import COLOURS, ingested, install_models, jpeg, rows, run_sql, settings
from worker import shadow_report
from worker.infer import Inference
from worker.predictors import Predictors
from worker.shadow import Shadow, work

FOUR = list(COLOURS)
TAGS, JUDGE = "tiny-tags@2", "tiny-moderation@2"
ALL = Limits(1.0, pictures=1000)


class Beside:
    """A line with the tiny models active, and processes that work on shadow runs."""

    def __init__(self, owner: Database, database: Database, url: str, folder: Path) -> None:
        self.owner = owner
        self.database = database
        self.folder = folder
        self.settings = settings(folder, url)
        self.blobs = LocalBlobs(folder / "blobs")
        install_models(owner, folder / "models")

    def candidate(self, task: str = "tags", **more: Any) -> str:
        artifact = make_tiny(self.folder / "models" / f"tiny-{task}" / "2", task, version="2", **more)  # type: ignore[arg-type]
        with self.owner.transaction() as session:
            registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
        return artifact.card.ref

    def start(self, ref: str, limits: Limits = ALL) -> UUID:
        with self.database.transaction() as session:
            return shadow.start(session, ref, limits).id

    def job(self, account: TestAccount, copies: Sequence[bytes]) -> UUID:
        """A job, scored by the line."""
        made = ingested(self.owner, self.blobs, account.id, copies)
        predictors = Predictors(self.settings, self.database, "cpu")
        Inference(self.settings, self.database, self.blobs, predictors, uuid7()).run()
        return made

    def stage(self, **more: Any) -> Shadow:
        with_settings = self.settings.model_copy(update=more)
        return Shadow(with_settings, self.database, self.blobs, settle_s=0)

    def run(self, ref: str) -> ShadowRun:
        with self.database.transaction() as session:
            found = shadow.latest(session, ref)
            assert found is not None
            return found

    def report(self, ref: str) -> dict[str, Any]:
        return shadow_report.document(self.database, ref, top_k=5, min_score=0.05)


@pytest.fixture
def beside(owner_db: Database, db: Database, database_url: str, tmp_path: Path) -> Beside:
    return Beside(owner_db, db, database_url, tmp_path)


def turns(stage: Shadow) -> int:
    """Until nothing is due."""
    done = 0
    while stage.turn():
        done += 1
    return done


def pictures(number: int) -> list[bytes]:
    return [jpeg(FOUR[n % 4], n) for n in range(number)]


def seen(database: Database, job: UUID) -> list[Any]:
    """All that anybody can see of a job, but for its ids and times."""
    return [
        rows(database, sql, job=job)
        for sql in (
            "SELECT seq, outcome, code, detail, sha256, tags, moderation, published FROM results WHERE job_id = :job"
            " ORDER BY seq",
            "SELECT state, lane, total, models, policy, round, settled FROM jobs WHERE id = :job",
            "SELECT stage, state, attempts, deferrals, done, failed, codes, seqs FROM chunks WHERE job_id = :job"
            " ORDER BY stage, lo",
        )
    ]


def others(database: Database) -> list[Any]:
    """What a shadow run has no business with."""
    return [
        rows(database, f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        for table in ("jobs", "chunks", "items", "ingests", "results", "images", "outbox", "reruns", "model_versions")
    ]


def test_results_are_the_same_with_a_shadow_run_as_without(beside: Beside, account: TestAccount) -> None:
    plain = beside.job(account, pictures(40))
    beside.candidate(renamed={"red": "crimson"})
    beside.start(TAGS)
    run_sql(beside.owner, "DELETE FROM analyses")  # so that the line scores again
    watched = beside.job(account, pictures(40))
    before = others(beside.owner)
    assert turns(beside.stage()) == 2  # 32 pictures and 8
    assert others(beside.owner) == before
    assert seen(beside.owner, watched) == seen(beside.owner, plain)
    after = beside.job(account, pictures(40))
    assert seen(beside.owner, after) == seen(beside.owner, plain)
    assert beside.run(TAGS).compared == 40


def test_the_report_equals_a_computation_by_hand(beside: Beside, account: TestAccount) -> None:
    """Two colours have other names: half of the pictures get another best label, and nothing else changes."""
    beside.candidate(renamed={"red": "crimson", "green": "lime"})
    beside.start(TAGS)
    colours = ["red", "red", "red", "green", "blue", "grey"]
    job = beside.job(account, [jpeg(colour, n) for n, colour in enumerate(colours)])
    turns(beside.stage())
    found = beside.report(TAGS)
    assert (found["compared"], found["failed"]) == (6, [])
    (agreement,) = found["agreement"]
    assert (agreement["group"], agreement["pictures"], agreement["agree"]) == ("colour", 6, 2)
    assert agreement["flips"] == [
        {"active": "red", "candidate": "crimson", "pictures": 3},
        {"active": "green", "candidate": "lime", "pictures": 1},
    ]
    # Wilson's interval of 2 of 6, from the formula.
    assert (agreement["low"], agreement["high"]) == pytest.approx((0.0967714, 0.7000067), abs=1e-6)
    rates = {rate["label"]: (rate["active"], rate["candidate"]) for rate in found["rates"]}
    assert rates == {
        "red": (0.5, 0.0), "crimson": (0.0, 0.5), "green": (pytest.approx(1 / 6), 0.0),
        "lime": (0.0, pytest.approx(1 / 6)), "blue": (pytest.approx(1 / 6),) * 2, "grey": (pytest.approx(1 / 6),) * 2,
    }  # fmt: skip
    scores = {shift["label"]: shift for shift in found["scores"]}
    assert set(scores) == {"blue", "grey"}
    assert scores["blue"]["mean_absolute"] == pytest.approx(0.0)
    assert scores["blue"]["correlation"] == pytest.approx(1.0)
    mean = sum(expected("tags", COLOURS[c])["blue"] for c in colours) / 6
    assert scores["blue"]["active_mean"] == pytest.approx(mean, abs=1e-3)
    assert found["only_active"] == [{"group": "colour", "label": "red"}, {"group": "colour", "label": "green"}]
    assert {each["item"] for each in found["examples"][:4]} == {item_id(job, n) for n in range(4)}
    # Where the names changed, what the one gives to red and green is all of the difference.
    said = expected("tags", COLOURS["green"])
    green = next(each for each in found["examples"] if each["item"] == item_id(job, 3))
    assert green["distance"] == pytest.approx(said["red"] + said["green"], abs=1e-3)
    worst = found["examples"][0]
    assert (worst["active"]["label"], worst["candidate"]["label"]) in {("red", "crimson"), ("green", "lime")}
    assert worst["sha256"] in {row.sha256.hex() for row in rows(beside.owner, "SELECT sha256 FROM images")}
    assert found["verdicts"] is None
    run = beside.run(TAGS)
    assert found["cost"] == {"active_ms": run.active_s * 1000 / 6, "candidate_ms": run.candidate_s * 1000 / 6}
    assert min(found["cost"].values()) > 0
    assert run.agreed == {"colour": 2}


def test_verdicts_flip_by_the_policy_that_is_active(beside: Beside, account: TestAccount) -> None:
    """A moderation candidate that takes red for something harmless, and does not know a class that the policy names."""
    beside.candidate("moderation", renamed={"Porn": "Drawing2", "Drawing": "Porn"})
    beside.start(JUDGE)
    beside.job(account, pictures(8))  # two of each colour
    turns(beside.stage())
    found = beside.report(JUDGE)["verdicts"]
    # By the tiny model: red is Porn, blue is Drawing; the candidate calls red Drawing2 and blue Porn.
    flips = [("approve", "reject"), ("reject", "approve")]
    assert [(flip["active"], flip["candidate"]) for flip in found["flips"]] == flips
    assert [flip["pictures"] for flip in found["flips"]] == [2, 2]
    assert (found["policy"], found["agree"], found["pictures"]) == ("default@1", 4, 8)
    document = '{"name": "lenient", "version": 1, "thresholds": {"Porn": {"review": 0.01}}}'
    run_sql(
        beside.owner,
        "UPDATE policies SET document = CAST(:document AS jsonb) WHERE state = 'active'",
        document=document,
    )
    again = beside.report(JUDGE)["verdicts"]
    assert {(flip["active"], flip["candidate"]) for flip in again["flips"]} == {
        ("approve", "review"), ("review", "approve"),
    }  # fmt: skip


def spoil(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")


def lose(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize(("harm", "code"), [(spoil, "weights_hash_mismatch"), (lose, "artifact_missing")])
def test_a_candidate_that_does_not_load_is_reported_and_left_alone(
    beside: Beside, account: TestAccount, harm: Callable[[Path], None], code: str
) -> None:
    plain = beside.job(account, pictures(8))
    beside.candidate()
    beside.start(TAGS)
    harm(beside.folder / "models" / "tiny-tags" / "2")
    watched = beside.job(account, pictures(8))
    before = others(beside.owner)
    stage = beside.stage(model_retry_s=0.001)
    done = 0
    for _ in range(1000):  # the next turn is due a millisecond after the last
        done += stage.turn()
        if beside.run(TAGS).state != "running":
            break
        time.sleep(0.001)
    assert done == 3
    run = beside.run(TAGS)
    assert (run.state, run.code, run.compared) == ("failed", code, 0)
    assert run.detail is not None
    assert TAGS in run.detail
    assert not stage.turn(), "it is tried no more"
    assert others(beside.owner) == before
    assert seen(beside.owner, watched) == seen(beside.owner, plain)
    assert beside.report(TAGS)["run"]["code"] == code


def test_a_model_that_is_mended_in_time_goes_on(beside: Beside, account: TestAccount) -> None:
    beside.candidate()
    beside.start(TAGS)
    beside.job(account, pictures(8))
    place = beside.folder / "models" / "tiny-tags"
    (place / "2").rename(place / "away")
    stage = beside.stage(model_retry_s=0.001)
    assert stage.turn()
    assert (beside.run(TAGS).state, beside.run(TAGS).code) == ("running", "artifact_missing")
    (place / "away").rename(place / "2")
    while not stage.turn():  # due a millisecond after the last
        time.sleep(0.001)
    turns(stage)
    run = beside.run(TAGS)
    assert (run.state, run.code, run.compared, run.attempts) == ("running", None, 8, 0)


def test_pictures_that_fail_are_counted_by_whose_fault_it_is(
    beside: Beside, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.candidate()
    beside.start(TAGS)
    beside.job(account, pictures(12))
    keys = [row.work_key for row in rows(beside.owner, "SELECT work_key FROM images ORDER BY work_key")]
    beside.blobs.delete(keys[0])
    beside.blobs.put(keys[1], b"something else")
    real = Predictor.predict

    def predict(predictor: Predictor, batch: list[Prepared]) -> object:
        """The candidate cannot do blue pictures, and takes whole batches down with them."""
        if TAGS in predictor.models and any(float(p.inputs[0].mean(dim=(1, 2)).argmax()) == 2 for p in batch):
            raise RuntimeError("no blue, please")
        return real(predictor, batch)

    monkeypatch.setattr(Predictor, "predict", predict)
    turns(beside.stage())
    found = beside.report(TAGS)
    failed = {(each["side"], each["code"]): each["pictures"] for each in found["failed"]}
    assert failed["picture", "blob_missing"] == failed["picture", "blob_altered"] == 1
    assert 1 <= failed["candidate", "inference_failed"] <= 3
    assert found["compared"] + sum(failed.values()) == 12
    run = beside.run(TAGS)
    assert (run.compared, run.failed) == (found["compared"], sum(failed.values()))


def test_two_processes_do_each_picture_once(
    beside: Beside, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.candidate()
    beside.start(TAGS)
    beside.job(account, pictures(100))
    scored: list[str] = []
    real = shadow_sample.record

    def record(*arguments: Any, **more: Any) -> None:
        scored.extend(compared.picture.sha256.hex() for compared in arguments[2])
        real(*arguments, **more)

    monkeypatch.setattr(shadow_sample, "record", record)
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(beside.stage(), stop, 0.0)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    turns(beside.stage())
    images = {row.sha256.hex() for row in rows(beside.owner, "SELECT sha256 FROM images")}
    assert sorted(scored) == sorted(images), "a picture was scored twice, or never"
    assert beside.run(TAGS).compared == 100


def test_what_the_candidate_said_serves_it_later(beside: Beside, account: TestAccount) -> None:
    """Activated, it need not score these pictures again, and what is stored is what it would have said."""
    ref = beside.candidate(renamed={"red": "crimson"})
    beside.start(ref)
    beside.job(account, pictures(8))
    turns(beside.stage())
    stored = rows(beside.owner, "SELECT sha256, scores FROM analyses WHERE model = :model ORDER BY 1", model=ref)
    assert len(stored) == 8
    with beside.owner.transaction() as session:
        registry.activate(session, "tiny-tags", "2")
    with_shadow = beside.job(account, pictures(8))
    run_sql(beside.owner, "DELETE FROM analyses")
    without = beside.job(account, pictures(8))
    assert seen(beside.owner, with_shadow) == seen(beside.owner, without)
    assert rows(beside.owner, "SELECT sha256, scores FROM analyses WHERE model = :m ORDER BY 1", m=ref) == stored
    assert turns(beside.stage()) == 0
    assert beside.run(ref).state in ("running", "finished")
    with beside.owner.transaction() as session:
        shadow.settle(session)
    assert beside.run(ref).reason == "model_activated"


def test_the_sample_is_the_same_for_the_next_candidate(beside: Beside, account: TestAccount) -> None:
    beside.candidate()
    third = make_tiny(beside.folder / "models" / "tiny-tags" / "3", "tags", version="3")
    with beside.owner.transaction() as session:
        registry.install_model(session, third.card.to_dict(), third.sha256)
    for ref in (TAGS, third.card.ref):
        beside.start(ref, Limits(0.5, pictures=1000))
    beside.job(account, pictures(40))
    turns(beside.stage())
    found = rows(beside.owner, "SELECT run_id, sha256 FROM shadow_pictures")
    by_run: dict[UUID, set[bytes]] = {}
    for row in found:
        by_run.setdefault(row.run_id, set()).add(bytes(row.sha256))
    first, second = by_run.values()
    assert first == second
    assert 0 < len(first) < 40
    assert all(int.from_bytes(hashlib.sha256(sha).digest()[:4], "big") < 2**31 for sha in first)


def test_an_outage_in_a_turn_is_no_death(beside: Beside, account: TestAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    from db.errors import Unavailable

    beside.candidate()
    beside.start(TAGS)
    beside.job(account, pictures(8))
    stage = beside.stage()
    real = shadow_sample.record

    def away(*arguments: Any, **more: Any) -> None:
        raise Unavailable("the server is away")

    for _ in range(4):
        monkeypatch.setattr(shadow_sample, "record", away)
        with pytest.raises(Unavailable):
            stage.turn()
    assert beside.run(TAGS).attempts == 1
    monkeypatch.setattr(shadow_sample, "record", real)
    turns(stage)
    assert beside.run(TAGS).compared == 8


def test_stopped_in_the_middle_of_a_turn(beside: Beside, account: TestAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stopped run had in hand is dropped."""
    beside.candidate()
    beside.start(TAGS)
    beside.job(account, pictures(8))
    real = Predictor.predict

    def predict(predictor: Predictor, batch: list[Prepared]) -> object:
        if TAGS in predictor.models:
            with beside.owner.transaction() as session:
                if shadow.running(session, TAGS) is not None:
                    shadow.stop(session, TAGS)
        return real(predictor, batch)

    monkeypatch.setattr(Predictor, "predict", predict)
    assert beside.stage().turn()
    with beside.owner.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM shadow_pictures")) == 0
    assert beside.run(TAGS).state == "stopped"


def test_a_turn_that_hangs_ends_its_process() -> None:
    """Else its run would wait for ever: the companion starts no other process while this one lives."""
    program = (
        "import threading, time\nfrom worker import shadow\n"
        "class Hangs:\n    def turn(self):\n        time.sleep(1000)\n"
        "shadow.work(Hangs(), threading.Event(), None, 1)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=150)
    assert ended.returncode == -signal.SIGALRM
