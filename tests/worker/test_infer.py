"""The infer stage: batches across chunks, each picture scored once, and what happens when something is missing."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from db import registry
from db.blobs import LocalBlobs
from db.ids import uuid7
from db.progress import progress
from db.rescue import reap
from db.session import Database
from ml.predictor import Predictor, Prepared
from tests.conftest import TestAccount, make_account
from tests.worker.line import ingested, install_models, jpeg, rows, run_sql, settings
from worker.infer import Inference
from worker.predictors import Predictors

FOUR = ["red", "green", "blue", "grey"]


class Stage:
    """An inference stage on a test's database, with what its predictor was asked."""

    def __init__(self, database: Database, url: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.folder = folder
        self.url = url
        self.blobs = LocalBlobs(folder / "blobs")
        self.batches: list[int] = []
        self.before_batch: Callable[[], None] = lambda: None
        real = Predictor.predict

        def predict(predictor: Predictor, pictures: list[Prepared]) -> list[object]:
            if pictures:
                self.batches.append(len(pictures))
                self.before_batch()
            return real(predictor, pictures)  # type: ignore[return-value]

        patch.setattr(Predictor, "predict", predict)

    def inference(self, **more: object) -> Inference:
        """A new process' stage."""
        with_settings = settings(self.folder, self.url, **more)
        predictors = Predictors(with_settings, self.database, "cpu")
        return Inference(with_settings, self.database, self.blobs, predictors, uuid7())


@pytest.fixture
def stage(db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(db, database_url, tmp_path, monkeypatch)


@pytest.fixture
def models(owner_db: Database, tmp_path: Path) -> None:
    install_models(owner_db, tmp_path / "models")


def outcomes(database: Database, job: UUID) -> dict[int, tuple[str | None, str | None, str | None]]:
    """seq → (code, best tag, verdict)."""
    sql = "SELECT seq, code, tags, moderation FROM results WHERE job_id = :job"
    return {
        row.seq: (row.code, row.tags and row.tags[0]["label"], row.moderation and row.moderation["verdict"])
        for row in rows(database, sql, job=job)
    }


@pytest.mark.usefixtures("models")
def test_batches_fill_across_chunks(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(48)], chunk_size=6)
    drained = stage.inference(batch_size=16).run()
    verdicts = {"red": "reject", "green": "review", "blue": "approve", "grey": "approve"}
    assert outcomes(owner_db, job) == {n: (None, FOUR[n % 4], verdicts[FOUR[n % 4]]) for n in range(48)}
    assert stage.batches == [16, 16, 16]
    assert (drained.chunks, drained.images, drained.lost) == (8, 48, 0)


@pytest.mark.usefixtures("models")
def test_rows_say_all_that_was_asked(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    stage.inference(tags_top_k=2, tags_min_score=0.0).run()
    row = rows(owner_db, "SELECT tags, moderation FROM results WHERE job_id = :job", job=job)[0]
    assert [set(tag) for tag in row.tags] == [{"label", "group", "score", "model"}] * 2
    assert row.tags[0]["model"] == "tiny-tags@1"
    assert row.tags[0]["score"] >= row.tags[1]["score"]
    assert set(row.moderation["scores"]) == {"Drawing", "Hentai", "Neutral", "Porn", "Sexy"}
    assert row.moderation["model"] == "tiny-moderation@1"
    assert row.moderation["policy"] == "default@1"
    assert [reason["class"] for reason in row.moderation["reasons"]] == ["Porn"]


@pytest.mark.usefixtures("models")
def test_the_same_bytes_are_scored_once(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    """Within a chunk, across chunks of one stream, and, by the stored scores, in later jobs without any model."""
    copies = [jpeg("red"), jpeg("red"), jpeg("blue")]
    ingested(owner_db, stage.blobs, account.id, copies)
    ingested(owner_db, stage.blobs, account.id, copies)
    stage.inference().run()
    assert stage.batches == [2]
    later = ingested(owner_db, stage.blobs, account.id, copies)
    (stage.folder / "models").rename(stage.folder / "gone")
    stage.inference().run()
    assert [best for _, best, _ in outcomes(owner_db, later).values()] == ["red", "red", "blue"]
    assert stage.batches == [2]
    with owner_db.transaction() as session:
        assert progress(session, later).reused == {"not_modified": 0, "known_bytes": 0, "known_scores": 3}


@pytest.mark.usefixtures("models")
def test_another_accounts_scores_are_not_used(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    ingested(owner_db, stage.blobs, other.id, [jpeg("red")])
    stage.inference().run()
    assert sum(stage.batches) == 2


@pytest.mark.usefixtures("models")
def test_lost_and_altered_copies_harm_only_themselves(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    copies = [jpeg(FOUR[n % 4], n) for n in range(8)]
    job = ingested(owner_db, stage.blobs, account.id, copies)
    keys = [row.work_key for row in rows(owner_db, "SELECT work_key FROM images ORDER BY work_key")]
    stage.blobs.delete(keys[0])
    stage.blobs.put(keys[1], b"something else")
    stage.blobs.put(keys[2], jpeg("green", 77))  # a good picture, but another one: only its hash tells
    stage.inference().run()
    codes = sorted(code or "" for code, _, _ in outcomes(owner_db, job).values())
    assert codes == [""] * 5 + ["blob_altered"] * 2 + ["blob_missing"]


def test_without_a_moderation_model_people_must_look(
    stage: Stage, owner_db: Database, account: TestAccount, tmp_path: Path
) -> None:
    install_models(owner_db, tmp_path / "models", ["tags"])
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("blue")])
    stage.inference().run()
    moderation = rows(owner_db, "SELECT moderation FROM results WHERE job_id = :job", job=job)[0].moderation
    assert moderation["verdict"] == "review"
    assert [reason["code"] for reason in moderation["reasons"]] == ["no_moderation_model"]
    assert moderation["model"] is None


def test_without_any_model_the_job_still_ends(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("blue")])
    stage.inference().run()
    row = rows(owner_db, "SELECT tags, moderation FROM results WHERE job_id = :job", job=job)[0]
    assert (row.tags, row.moderation["verdict"], stage.batches) == ([], "review", [])


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_model_that_does_not_load_costs_no_attempt(
    stage: Stage, owner_db: Database, account: TestAccount, harm: str
) -> None:
    weights = stage.folder / "models" / "tiny-tags" / "1" / "model.safetensors"
    if harm == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    stage.inference().run()
    chunk = rows(
        owner_db,
        "SELECT state, attempts, not_before > now() + interval '5 seconds' AS later FROM chunks"
        " WHERE job_id = :job AND stage = 'infer'",
        job=job,
    )[0]
    assert (chunk.state, chunk.attempts, chunk.later) == ("ready", 0, True)
    assert outcomes(owner_db, job) == {}


@pytest.mark.usefixtures("models")
def test_jobs_with_other_models_follow(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    """A job pins its models: after an activation, old and new chunks each go through their own."""
    from ml.tiny import make_tiny

    old = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    artifact = make_tiny(stage.folder / "models" / "tiny-tags" / "2", "tags", version="2")
    with owner_db.transaction() as session:
        registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
        registry.activate(session, "tiny-tags", "2")
    new = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])
    stage.inference().run()
    models = rows(owner_db, "SELECT job_id, tags->0->>'model' AS model FROM results")
    assert {row.job_id: row.model for row in models} == {old: "tiny-tags@1", new: "tiny-tags@2"}


@pytest.mark.usefixtures("models")
def test_a_lost_lease_writes_nothing(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red")])

    def lose() -> None:
        run_sql(owner_db, "UPDATE chunks SET lease_until = now() - interval '1 second' WHERE state = 'leased'")
        with owner_db.transaction() as session:
            assert reap(session).released == 1
        run_sql(owner_db, "UPDATE chunks SET not_before = now() + interval '1 hour' WHERE state = 'ready'")

    stage.before_batch = lose
    drained = stage.inference().run()
    assert (drained.chunks, drained.lost) == (0, 1)
    assert outcomes(owner_db, job) == {}
    assert rows(owner_db, "SELECT 1 FROM analyses") == []


@pytest.mark.usefixtures("models")
def test_a_stop_in_the_middle_gives_back_and_keeps_the_scores(
    stage: Stage, owner_db: Database, account: TestAccount
) -> None:
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red", n) for n in range(16)])
    inference = stage.inference(batch_size=4, infer_ahead=4)
    stage.before_batch = inference.stop.set
    inference.run()
    chunk = rows(owner_db, "SELECT state, attempts FROM chunks WHERE job_id = :job AND stage = 'infer'", job=job)[0]
    assert (chunk.state, chunk.attempts) == ("ready", 0)
    before = sum(stage.batches)
    assert 0 < before < 16
    stage.before_batch = lambda: None
    stage.inference().run()
    assert len(outcomes(owner_db, job)) == 16
    assert sum(stage.batches) == 16, "pictures were scored again after a graceful stop"


@pytest.mark.usefixtures("models")
def test_a_chunk_on_its_last_chance_goes_alone(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    """Else an innocent chunk, leased ahead, would be split and at last given up together with the guilty one."""
    job = ingested(owner_db, stage.blobs, account.id, [jpeg("red", n) for n in range(24)], chunk_size=8)
    suspect = rows(owner_db, "SELECT id FROM chunks WHERE stage = 'infer' ORDER BY id OFFSET 1 LIMIT 1")[0].id
    run_sql(owner_db, "UPDATE chunks SET attempts = 2 WHERE id = :id", id=suspect)
    beside: list[int] = []

    def look() -> None:
        leased = [row.id for row in rows(owner_db, "SELECT id FROM chunks WHERE state = 'leased'")]
        if suspect in leased:
            beside.append(len(leased))

    stage.before_batch = look
    stage.inference(batch_size=4, infer_ahead=32).run()
    assert len(outcomes(owner_db, job)) == 24
    assert beside
    assert set(beside) == {1}


def ended(database: Database) -> list[UUID]:
    """The jobs of infer chunks in the order in which these ended."""
    sql = "SELECT job_id FROM chunks WHERE stage = 'infer' AND state = 'done' ORDER BY finished_at, id"
    return [row.job_id for row in rows(database, sql)]


@pytest.mark.usefixtures("models")
def test_an_urgent_chunk_overtakes_the_one_in_work(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    bulk = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)])
    urgent: list[UUID] = []

    def upload() -> None:
        if len(stage.batches) == 2:
            urgent.append(ingested(owner_db, stage.blobs, account.id, [jpeg("red", 99)], lane="interactive"))

    stage.before_batch = upload
    drained = stage.inference(batch_size=4, infer_ahead=16, urgent_poll_s=0.001).run()
    assert ended(owner_db) == [*urgent, bulk]
    assert stage.batches == [4, 4, 1, 4, 4], "it does not wait for what is decoded ahead"
    assert outcomes(owner_db, urgent[0]) == {0: (None, "red", "reject")}
    assert len(outcomes(owner_db, bulk)) == 16
    assert (drained.chunks, drained.images, drained.lost) == (2, 17, 0)


@pytest.mark.usefixtures("models")
def test_an_urgent_chunk_overtakes_also_when_the_time_of_the_task_is_over(
    stage: Stage, owner_db: Database, account: TestAccount
) -> None:
    """Nothing new is begun then, but the chunk in hand may take long."""
    bulk = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)])
    later: list[UUID] = []
    urgent: list[UUID] = []
    inference = stage.inference(batch_size=4, infer_ahead=4, urgent_poll_s=0.001)

    def upload() -> None:
        if len(stage.batches) == 1:
            inference._deadline = 0.0
            later.append(ingested(owner_db, stage.blobs, account.id, [jpeg("blue", 98)]))
            urgent.append(ingested(owner_db, stage.blobs, account.id, [jpeg("red", 99)], lane="interactive"))

    stage.before_batch = upload
    inference.run()
    assert ended(owner_db) == [*urgent, bulk]
    assert outcomes(owner_db, later[0]) == {}


@pytest.mark.usefixtures("models")
def test_an_urgent_chunk_of_other_models_overtakes_too(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    """After an activation, uploads would else wait for every chunk of the jobs from before."""
    from ml.tiny import make_tiny

    bulk = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)])
    urgent: list[UUID] = []

    def activate_and_upload() -> None:
        if len(stage.batches) != 1:
            return
        artifact = make_tiny(stage.folder / "models" / "tiny-tags" / "2", "tags", version="2")
        with owner_db.transaction() as session:
            registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
            registry.activate(session, "tiny-tags", "2")
        urgent.append(ingested(owner_db, stage.blobs, account.id, [jpeg("red", 99)], lane="interactive"))

    stage.before_batch = activate_and_upload
    stage.inference(batch_size=4, infer_ahead=4, urgent_poll_s=0.001).run()
    assert ended(owner_db) == [*urgent, bulk]
    tags = rows(owner_db, "SELECT DISTINCT job_id, tags->0->>'model' AS model FROM results")
    assert {row.job_id: row.model for row in tags} == {bulk: "tiny-tags@1", urgent[0]: "tiny-tags@2"}


@pytest.mark.usefixtures("models")
def test_an_urgent_chunk_on_its_last_chance_waits_until_it_is_alone(
    stage: Stage, owner_db: Database, account: TestAccount
) -> None:
    bulk = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(48)])
    suspect: list[UUID] = []
    beside: set[int] = set()

    def look() -> None:
        if len(stage.batches) == 1:
            suspect.append(ingested(owner_db, stage.blobs, account.id, [jpeg("red", 99)], lane="interactive"))
            run_sql(owner_db, "UPDATE chunks SET attempts = 2 WHERE job_id = :id AND stage = 'infer'", id=suspect[0])
        leased = [row.job_id for row in rows(owner_db, "SELECT job_id FROM chunks WHERE state = 'leased'")]
        if suspect and suspect[0] in leased:
            beside.add(len(leased))

    stage.before_batch = look
    stage.inference(batch_size=4, infer_ahead=4, urgent_poll_s=0.001).run()
    assert beside == {1}
    assert ended(owner_db) == [bulk, suspect[0], bulk, bulk], "it comes next, not last"
    claims = rows(owner_db, "SELECT attempts FROM chunks WHERE job_id = :id AND stage = 'infer'", id=suspect[0])
    assert claims[0].attempts == 3, "being given back costs no attempt"


@pytest.mark.usefixtures("models")
def test_nobody_gets_more_by_calling_everything_interactive(
    stage: Stage, owner_db: Database, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    from db import jobs
    from db.chunks import URGENT_CHUNK

    monkeypatch.setattr(jobs, "MIN_CHUNK", 1000)
    greedy = make_account(owner_db, "greedy")
    bulk = ingested(owner_db, stage.blobs, account.id, [jpeg("red", n) for n in range(100)], chunk_size=512)
    for colour in ("green", "blue", "grey"):
        copies = [jpeg(colour, n) for n in range(200)]
        ingested(owner_db, stage.blobs, greedy.id, copies, chunk_size=512, lane="interactive")
    run_sql(owner_db, "UPDATE accounts SET claimed_at = now() WHERE id = :id", id=greedy.id)  # the other one is first
    stage.inference(batch_size=4, infer_ahead=8, urgent_poll_s=0.0001).run()
    before = rows(
        owner_db,
        "SELECT coalesce(sum(g.done), 0) AS n FROM chunks g JOIN chunks b ON b.job_id = :id AND b.stage = 'infer'"
        " WHERE g.account_id = :greedy AND g.stage = 'infer' AND g.finished_at < b.finished_at",
        id=bulk,
        greedy=greedy.id,
    )[0].n
    assert 0 < before <= 100 + 2 * URGENT_CHUNK
    assert rows(owner_db, "SELECT count(*) AS n FROM results")[0].n == 700


@pytest.mark.usefixtures("models")
def test_a_bulk_chunk_overtakes_nothing(stage: Stage, owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    first = ingested(owner_db, stage.blobs, account.id, [jpeg(FOUR[n % 4], n) for n in range(16)])
    second: list[UUID] = []

    def submit() -> None:
        if len(stage.batches) == 1:
            second.append(ingested(owner_db, stage.blobs, other.id, [jpeg("red", 99)]))

    stage.before_batch = submit
    stage.inference(batch_size=4, infer_ahead=4, urgent_poll_s=0.001).run()
    assert ended(owner_db) == [first, *second]
