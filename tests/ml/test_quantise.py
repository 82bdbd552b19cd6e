"""int8 from end to end with a tiny network: what is offered, what is refused, and what a predictor then runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml import exported, quantise, tuning
from ml.artifact import Artifact, save
from ml.choice import Choice
from ml.errors import BackendError, DatasetError, QuantiseError
from ml.exported import Exported
from ml.manifest import Group, Manifest
from ml.plain_predictor import PlainPredictor
from ml.quantise import How
from tests.ml.conftest import png
from tests.ml.datasets import coloured

pytest.importorskip("openvino")
pytest.importorskip("nncf", reason="the extra `int8` is not installed")
ROOT = Path(__file__).resolve().parents[2]
INT8 = Choice("openvino", "int8", 4)


def colours(folder: Path, per_label: int) -> Manifest:
    """Pictures of three colours, and nothing but the colour known of them."""
    made = coloured(folder, per_label)
    entries = tuple(replace(entry, labels={"colour": entry.labels["colour"]}) for entry in made.entries)
    return Manifest("colours", "1", {"colour": Group("exclusive", ("red", "green", "blue"))}, entries)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """Enough to be sure where nothing changes: 132 of each colour to judge on."""
    folder = tmp_path_factory.mktemp("photos")
    return colours(folder, 264), folder


@pytest.fixture
def tiny(tiny_tags: Artifact, tmp_path: Path) -> Artifact:
    """Its card allows bf16."""
    return save(tmp_path / "tiny-bf16", replace(tiny_tags.card, precision="bf16"), tiny_tags.state)


@pytest.fixture
def network(tiny: Artifact, tmp_path: Path) -> Exported:
    (tmp_path / "fp32").mkdir()
    exported.write(tiny, tmp_path / "fp32")
    return exported.read(tmp_path / "fp32", tiny.sha256)


@pytest.fixture
def kept(tiny: Artifact, network: Exported, photos: tuple[Manifest, Path], tmp_path: Path) -> Path:
    """The folder of an int8 network that was offered."""
    made = quantise.quantise(tiny.card, network, *photos, How(pictures=40))
    assert made.refused is None, made.refused
    folder = tmp_path / "int8"
    folder.mkdir()
    exported.keep(made.network, tiny.sha256, folder)
    return folder


def test_what_is_as_good_is_offered_with_its_figures(kept: Path, tiny: Artifact) -> None:
    found = exported.read_int8(kept, tiny.card, tiny.sha256)
    assert found.judged is not None
    assert found.judged["dataset"] == "colours@1"
    assert found.judged["split"] == "validation"
    assert found.judged["learned"] == {"split": "train", "pictures": 40, "seed": 0}
    (group,) = found.judged["groups"]
    assert (group["group"], group["figure"], group["pictures"], group["verdict"]) == ("colour", "accuracy", 396, "kept")
    assert group["before"] >= 0.99
    kinds = [each.get_type_name() for each in found.model.get_ops()]
    assert kinds.count("FakeQuantize") >= 2, "it is quantised at all"


def test_a_predictor_runs_it_only_where_it_was_measured_to_be_the_fastest(
    kept: Path, tiny: Artifact, network: Exported
) -> None:
    both = [(tiny.card, replace(network, int8=exported.read_int8(kept, tiny.card, tiny.sha256)))]
    assert PlainPredictor(both).backends[tiny.card.ref].backend.name != "openvino-int8"
    other = {tiny.card.ref: Choice("openvino", "fp32", 2)}
    assert PlainPredictor(both, choices=other).backends[tiny.card.ref].backend.name != "openvino-int8"
    predictor = PlainPredictor(both, choices={tiny.card.ref: INT8})
    backend = predictor.backends[tiny.card.ref].backend
    assert (backend.name, backend.compiled.sizes) == ("openvino-int8", (4, 1))
    usual = PlainPredictor([(replace(tiny.card, precision="fp32"), network)])
    pictures = [png((190, 60, 60)), png((60, 190, 60)), png((60, 60, 190)), png((90, 90, 90)), png((200, 190, 60))]
    ours = predictor.predict([predictor.prepare(data) for data in pictures])
    theirs = usual.predict([usual.prepare(data) for data in pictures])
    gaps = [np.abs(a[tiny.card.ref].values - b[tiny.card.ref].values).max() for a, b in zip(ours, theirs, strict=True)]
    assert 0 < max(gaps) < 0.1, "int8, and near fp32"
    alone = PlainPredictor([(tiny.card, network)], choices={tiny.card.ref: INT8})
    assert alone.backends[tiny.card.ref].backend.name != "openvino-int8", "chosen, and not there"


def test_a_machine_that_computes_otherwise_does_not_run_it(kept: Path, tiny: Artifact, network: Exported) -> None:
    found = exported.read_int8(kept, tiny.card, tiny.sha256)
    saturated = replace(found, logits=found.logits * np.float32(1.03))
    predictor = PlainPredictor([(tiny.card, replace(network, int8=saturated))], choices={tiny.card.ref: INT8})
    chosen = predictor.backends[tiny.card.ref]
    assert chosen.backend.name != "openvino-int8"
    assert "differ" in chosen.refused["openvino-int8"]
    tuned = tuning.tune(tiny, seconds=0, int8=saturated)
    refusals = [each.refused for each in tuned.measured if each.choice.precision == "int8"]
    assert len(refusals) == len(tuning.BATCHES)
    assert all("evaluated elsewhere" in (why or "") for why in refusals)


def test_tuning_measures_it_where_it_is_there(kept: Path, tiny: Artifact) -> None:
    assert not [each for each in tuning.tune(tiny, seconds=0).measured if each.choice.precision == "int8"]
    tuned = tuning.tune(tiny, seconds=0, int8=exported.read_int8(kept, tiny.card, tiny.sha256))
    measured = [each for each in tuned.measured if each.choice.precision == "int8"]
    assert [each.choice.batch for each in measured] == list(tuning.BATCHES)
    assert all(each.refused is None and each.images_s and each.gap > 0 for each in measured)


@pytest.mark.parametrize("name", [exported.NETWORK, exported.WEIGHTS, exported.PROBE])
def test_a_tampered_file_is_refused(kept: Path, tiny: Artifact, name: str) -> None:
    data = bytearray((kept / name).read_bytes())
    data[len(data) // 2] ^= 1
    (kept / name).write_bytes(data)
    with pytest.raises(BackendError, match="not as it was exported"):
        exported.read_int8(kept, tiny.card, tiny.sha256)


@pytest.mark.parametrize("changed", [{"offered": False}, {"offered": "true"}, {"offered": None}])
def test_what_no_evaluation_offers_is_refused(kept: Path, tiny: Artifact, changed: dict[str, object]) -> None:
    about = json.loads((kept / exported.ABOUT).read_text())
    about["int8"].update(changed)
    (kept / exported.ABOUT).write_text(json.dumps(about))
    with pytest.raises(BackendError, match="no evaluation offers"):
        exported.read_int8(kept, tiny.card, tiny.sha256)


def test_one_kind_is_not_read_for_the_other(kept: Path, tiny: Artifact, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="holds an int8 network"):
        exported.read(kept, tiny.sha256)
    with pytest.raises(BackendError, match="no evaluation offers"):
        exported.read_int8(tmp_path / "fp32", tiny.card, tiny.sha256)
    with pytest.raises(BackendError, match="not as it was exported"):
        exported.read_int8(kept, tiny.card, "0" * 64)
    with pytest.raises(BackendError, match="asks for fp32"):
        exported.read_int8(kept, replace(tiny.card, precision="fp32"), tiny.sha256)


def test_a_card_of_fp32_is_gone_past_only_on_request(
    tiny: Artifact, network: Exported, photos: tuple[Manifest, Path], tmp_path: Path
) -> None:
    strict = replace(tiny.card, precision="fp32")
    with pytest.raises(QuantiseError) as refused:
        quantise.quantise(strict, network, *photos)
    assert refused.value.code == "int8_forbidden"
    made = quantise.quantise(strict, network, *photos, How(pictures=40, below_card=True))
    exported.keep(made.network, tiny.sha256, tmp_path)
    assert exported.read_int8(tmp_path, strict, tiny.sha256).judged is not None


def test_a_broken_quantisation_is_refused(
    tiny: Artifact, network: Exported, photos: tuple[Manifest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges learned from black pictures: whatever is brighter is cut off."""
    real = quantise.network_of
    black = [np.zeros((3, 8, 8), np.float32)] * 8
    monkeypatch.setattr(quantise, "network_of", lambda exported, _: real(exported, black))
    made = quantise.quantise(tiny.card, network, *photos, How(few_pictures=True))
    assert made.refused is not None
    assert made.refused.code == "int8_loses_accuracy"
    assert "colour (-" in made.refused.detail
    assert made.network.judged is not None
    assert made.network.judged["offered"] is False


def test_too_few_pictures_are_said_and_taken_only_on_request(tiny: Artifact, network: Exported, tmp_path: Path) -> None:
    few = colours(tmp_path, 16), tmp_path
    made = quantise.quantise(tiny.card, network, *few)
    assert made.refused is not None
    assert made.refused.code == "int8_unproven"
    assert "24 pictures" in made.refused.detail
    taken = quantise.quantise(tiny.card, network, *few, How(few_pictures=True))
    assert taken.refused is None
    assert taken.network.judged is not None
    assert taken.network.judged["few_pictures"] is True
    with pytest.raises(DatasetError) as same:
        quantise.quantise(tiny.card, network, *few, How(learn_from="validation"))
    assert same.value.code == "split_invalid"
    with pytest.raises(DatasetError) as empty:
        quantise.quantise(tiny.card, network, *few, How(learn_from="nowhere"))
    assert empty.value.code == "dataset_empty"


def test_unreadable_pictures_are_left_out(tiny: Artifact, network: Exported, tmp_path: Path) -> None:
    few = colours(tmp_path, 16)
    for split in ("train", "validation"):
        (tmp_path / next(entry.image for entry in few.split(split))).write_bytes(b"no picture")
    made = quantise.quantise(tiny.card, network, few, tmp_path, How(few_pictures=True))
    assert made.network.judged is not None
    assert (made.network.judged["pictures"], made.network.judged["unread"]) == (23, 1)
    assert made.network.judged["learned"]["pictures"] == 47


def test_what_cannot_be_quantised_says_so(network: Exported) -> None:
    with pytest.raises(QuantiseError) as refused:
        quantise.network_of(network, [np.zeros((5, 8), np.float32)])
    assert refused.value.code == "int8_not_possible"


def test_without_nncf_the_extra_is_named(
    tiny: Artifact, network: Exported, photos: tuple[Manifest, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "find_spec", lambda name: None)
    with pytest.raises(QuantiseError) as missing:
        quantise.quantise(tiny.card, network, *photos)
    assert missing.value.code == "extra_missing"


@pytest.mark.parametrize(
    "code",
    [
        "import ml.plain_predictor, ml.exported, worker.exporting, worker.predictors, worker.child\n"
        "assert 'nncf' not in sys.modules",
        "import ml.quantise\nfrom ml.openvino_runtime import openvino\n"
        "assert 'nncf' not in sys.modules\nopenvino()\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert type(telemetry).__name__ != 'NNCFTelemetry', telemetry\n"
        "assert sys.modules['openvino_telemetry'] is None",
    ],
)
def test_workers_do_not_load_nncf_and_it_reports_nothing(code: str) -> None:
    ran = subprocess.run([sys.executable, "-c", "import sys\n" + code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
