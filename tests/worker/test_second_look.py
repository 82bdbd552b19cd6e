"""`tagmill models views`: a version that looks again is another model, its stored scores are its own."""

from pathlib import Path

import pytest

from db import registry
from db.errors import Conflict, NotFound
from db.session import Database
from ml import artifact
from ml.errors import ArtifactError
from ml.tiny import make_tiny
from tests.worker.test_learning import Commands
from worker import second_look
from worker.second_look import OneLook


def install(db: Database, root: Path) -> None:
    made = make_tiny(root / "tiny-moderation" / "1", "moderation")
    with db.transaction() as session:
        registry.install_model(session, made.card.to_dict(), made.sha256)


def test_the_version_is_a_candidate_of_the_same_weights(db: Database, tmp_path: Path) -> None:
    install(db, tmp_path)
    made = second_look.make(db, tmp_path, "tiny-moderation@1", 4, sure=0.8)
    assert made.ref == "tiny-moderation@1-4views"
    with db.transaction() as session:
        row = registry.by_ref(session, made.ref)
        assert (row.state, row.sha256, row.card["parent"]) == ("candidate", made.sha256, "tiny-moderation@1")
        assert registry.lineage(session, row) == ["tiny-moderation@1"]
    first = artifact.load(tmp_path / "tiny-moderation" / "1")
    again = artifact.load(made.folder, row.sha256)
    assert again.card.preset["views"] == 4
    assert again.card.preset["sure"] == 0.8
    assert again.sha256 != first.sha256
    assert all(bool((again.state[name] == tensor).all()) for name, tensor in first.state.items())
    assert second_look.make(db, tmp_path, "tiny-moderation@1", 4, sure=0.8).sha256 == made.sha256, "the same once more"


def test_what_cannot_be_made_is_refused_and_leaves_nothing(db: Database, tmp_path: Path) -> None:
    install(db, tmp_path)
    made = make_tiny(tmp_path / "tiny-tags" / "1", "tags")
    whole = made.card.to_dict() | {"preset": {"name": "whole", "size": 8}, "name": "squashed"}
    squashed = artifact.save(tmp_path / "squashed" / "1", artifact.from_dict(whole), made.state)
    with db.transaction() as session:
        registry.install_model(session, squashed.card.to_dict(), squashed.sha256)
    with pytest.raises(OneLook):
        second_look.make(db, tmp_path, "squashed@1", 2)
    with pytest.raises(NotFound):
        second_look.make(db, tmp_path, "tiny-moderation@2", 2)
    with pytest.raises(Conflict):
        second_look.make(db, tmp_path, "tiny-moderation@1", 2, version="1")
    with pytest.raises(ArtifactError) as refused:
        second_look.make(db, tmp_path, "tiny-moderation@1", 9)
    assert refused.value.code == "card_invalid"
    assert [path.name for path in (tmp_path / "tiny-moderation").iterdir()] == ["1"]


@pytest.mark.slow
def test_the_command(tmp_path: Path, database_url: str) -> None:
    tagmill = Commands(tmp_path, database_url)
    database = Database(database_url, pool_size=1)
    try:
        install(database, tagmill.models)
    finally:
        database.dispose()
    assert "tiny-moderation@1-2views for moderation: candidate" in tagmill("models", "views", "tiny-moderation@1", "2")
    shown = tagmill("models", "show", "tiny-moderation@1-2views")
    assert "2 views where the best score is below 0.9" in shown
    assert "tiny-moderation@1 " in shown or "tiny-moderation@1\n" in shown, "what it was made from"
    assert "views" not in tagmill("models", "show", "tiny-moderation@1")
    assert "preset.views" in tagmill("models", "views", "tiny-moderation@1", "9", code=1)
