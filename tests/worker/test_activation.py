"""Activation of a model whose files are whole, missing or damaged; the margins that the operator sets; the page."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from db import registry
from db.errors import NotFound
from db.promotion import Margins
from db.session import Database
from ml.artifact import WEIGHTS_FILE
from ml.errors import ArtifactError
from ml.evaluation import Unread
from ml.tiny import make_tiny
from tests.ml.test_report import evaluation
from worker import activation, evaluation_page, promotion_margins
from worker.promotion_margins import MarginsInvalid


def installed(db: Database, root: Path) -> Path:
    """The weights of tiny-tags@1, registered as a candidate."""
    folder = root / "tiny-tags" / "1"
    made = make_tiny(folder, "tags")
    with db.transaction() as session:
        registry.install_model(session, made.card.to_dict(), made.sha256)
    return folder / WEIGHTS_FILE


def state(db: Database) -> str:
    with db.transaction() as session:
        return registry.by_ref(session, "tiny-tags@1").state


def test_a_whole_model_is_activated_and_the_gate_said(db: Database, tmp_path: Path) -> None:
    installed(db, tmp_path)
    model, gate = activation.activate(db, tmp_path, "tiny-tags", "1")
    assert (model.ref, model.state) == ("tiny-tags@1", "active")
    assert str(gate) == "open: no version is active, so nothing was compared"
    assert activation.activate(db, tmp_path, "tiny-tags", "1")[1] is None, "it was active before"


@pytest.mark.parametrize("forced", [None, "because"])
def test_missing_truncated_and_tampered_weights_are_refused_whatever_the_reason(
    db: Database, tmp_path: Path, forced: str | None
) -> None:
    weights = installed(db, tmp_path)
    whole = weights.read_bytes()
    changed = bytearray(whole)
    changed[-1] ^= 1
    for content in (whole[: len(whole) // 2], bytes(changed), None):
        if content is None:
            weights.unlink()
        else:
            weights.write_bytes(content)
        with pytest.raises(ArtifactError) as refused:
            activation.activate(db, tmp_path, "tiny-tags", "1", forced=forced)
        assert refused.value.code == ("artifact_missing" if content is None else "weights_hash_mismatch")
        assert state(db) == "candidate"
    with pytest.raises(NotFound):
        activation.activate(db, tmp_path, "tiny-tags", "2", forced=forced)


def test_the_margins_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAGMILL_GATE_MARGINS", raising=False)
    assert promotion_margins.configured() == Margins()
    monkeypatch.setenv("TAGMILL_GATE_MARGINS", "label=0.1")
    assert promotion_margins.configured() == Margins(label=0.1)
    monkeypatch.setenv("TAGMILL_GATE_MARGINS", "label=much")
    with pytest.raises(MarginsInvalid, match="TAGMILL_GATE_MARGINS: 'label=much' is not NAME=NUMBER"):
        promotion_margins.configured()


def test_the_page_of_an_evaluation_has_every_label_and_what_was_left_out() -> None:
    from rich.console import Console

    unread = tuple(Unread(f"[b]{at}.jpg", "not_an_image", "") for at in range(12))
    screen = Console(width=80, record=True, file=StringIO(), highlight=False)
    for part in evaluation_page.render(replace(evaluation("label"), unread=unread)):
        screen.print(part)
    text = screen.export_text()
    assert "nan" not in text.lower().split()
    for word in ("label 0", "label 2", "calibration error by chance", "macro f1", "slices:", "most confused:"):
        assert word in text
    assert "[b]0.jpg (not_an_image)" in text
    assert "… and 2 more" in text
    assert all(len(line) <= 80 for line in text.splitlines())
