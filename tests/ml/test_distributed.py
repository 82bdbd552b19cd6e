"""Training on two processes: the same steps as one process with the whole batch, and nobody hangs or is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ml import artifact, distributed, train_ranks
from ml.augment import Augmentation
from ml.distributed import Ranks
from ml.errors import DatasetError, TrainingError, TrainingStopped
from ml.manifest import Manifest
from ml.train import train
from ml.train_config import from_dict
from tests.ml import datasets

Event = dict[str, Any]
pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def manifest(images: Path) -> Manifest:
    return datasets.coloured(images)


def ranks_of(out_dir: Path) -> list[int]:
    """The processes that train into this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            task = Path(os.fsdecode(words[-2])) if b"ml.train_rank" in words and b"-m" in words[:3] else None
            if task and b"torch.distributed.run" not in words and str(out_dir) in task.read_text():
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return sorted(found)


def test_shares_are_parts_of_the_whole() -> None:
    rows = list(range(11))
    shares = [Ranks(rank, 3).share(rows) for rank in range(3)]
    assert [row for share in shares for row in share] == rows
    assert {len(share) for share in shares} == {3, 4}
    assert Ranks().share(rows) == rows


def test_two_processes_take_the_steps_of_one_with_both_batches(
    manifest: Manifest, images: Path, tmp_path: Path
) -> None:
    """The head's stage: there BatchNorm does not look at the batch, and only rounding may differ."""
    runs: list[tuple[list[float], artifact.Artifact]] = []
    how = Augmentation(colour=0.2)
    for at, (devices, batch) in enumerate(((1, 6), (2, 3))):
        events: list[Event] = []
        config = datasets.config(devices=devices, batch_size=batch, head_epochs=3, epochs=0, augmentation=how)
        made = train(manifest, images, config, tmp_path / str(at), on_event=events.append)
        runs.append(([event["loss"] for event in events if event["event"] == "step"], made))
    (losses, one), (shared, two) = runs
    assert len(losses) == 12
    assert losses == pytest.approx(shared, rel=1e-5)
    for name, tensor in one.state.items():
        torch.testing.assert_close(tensor, two.state[name], rtol=1e-4, atol=1e-6)
    assert one.card.metrics == two.card.metrics


def test_all_layers_learn_together_and_only_the_first_writes(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = datasets.config(devices=2, batch_size=2, epochs=6, patience=4)
    made = train(manifest, images, config, tmp_path / "run", on_event=events.append)
    assert made.card.metrics["validation"]["colour"] == 1.0
    assert artifact.load(tmp_path / "run" / "model", made.sha256).card == made.card
    assert [event["epochs"] for event in events if event["event"] == "started"] == [7], "one process speaks"
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert ranks_of(tmp_path / "run") == []


def test_a_last_step_with_unequal_shares_is_the_mean_over_pictures(
    manifest: Manifest, images: Path, tmp_path: Path
) -> None:
    """24 pictures on 2 devices with room for 50: one step, and then 23 of them, one more in one share."""
    from dataclasses import replace

    odd = replace(manifest, entries=manifest.entries[1:])
    losses = []
    for devices, batch in ((1, 50), (2, 25)):
        events: list[Event] = []
        config = datasets.config(devices=devices, batch_size=batch, head_epochs=2, epochs=0)
        train(odd, images, config, tmp_path / str(devices), on_event=events.append)
        losses.append([event["loss"] for event in events if event["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_stop_is_a_checkpoint_and_the_rest_gives_the_same_weights(
    manifest: Manifest, images: Path, tmp_path: Path
) -> None:
    config = datasets.config(devices=2, batch_size=2, epochs=2, augmentation=Augmentation(mixup=0.4))
    whole = train(manifest, images, config, tmp_path / "whole")
    seen: list[int] = []

    def hear(event: Event) -> None:
        if event["event"] == "step":
            seen.append(event["step"])

    with pytest.raises(TrainingStopped) as stopped:
        train(manifest, images, config, tmp_path / "run", on_event=hear, should_stop=lambda: len(seen) >= 3)
    assert stopped.value.step is not None
    assert 3 <= stopped.value.step < 18
    events: list[Event] = []
    made = train(manifest, images, config, tmp_path / "run", resume=True, on_event=events.append)
    assert {"event": "resumed", "step": stopped.value.step} in events
    assert made.sha256 == whole.sha256


def test_a_killed_process_ends_the_others(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def hear(event: Event) -> None:
        if event["event"] == "step" and event["step"] == 4:
            os.kill(ranks_of(out)[-1], signal.SIGKILL)

    with pytest.raises(TrainingError) as died:
        train(manifest, images, datasets.config(devices=2, batch_size=2, epochs=40), out, on_event=hear)
    assert died.value.code == "rank_died"
    assert ranks_of(out) == []


def test_a_process_that_hangs_is_not_waited_for_for_ever(
    manifest: Manifest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "WAIT_S", 3.0)
    out = tmp_path / "run"
    hung: list[int] = []

    def hear(event: Event) -> None:
        if event["event"] == "step" and event["step"] == 4:
            hung.append(ranks_of(out)[-1])
            os.kill(hung[0], signal.SIGSTOP)

    with pytest.raises(TrainingError) as died:
        train(manifest, images, datasets.config(devices=2, batch_size=2, epochs=400), out, on_event=hear)
    assert died.value.code == "rank_died"
    assert hung[0] not in ranks_of(out)


def test_what_is_wrong_is_said_by_its_own_code(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as empty:
        train(manifest, images, datasets.config(devices=2, train_split="none"), tmp_path / "run")
    assert (empty.value.code, empty.value.field) == ("dataset_empty", "none")
    with pytest.raises(TrainingError, match="device must be cpu or cuda"):
        datasets.config(devices=2, device="cuda:0")
    assert datasets.config(devices=1).sha256() == datasets.config().sha256() != datasets.config(devices=2).sha256()


CHILD = """
import json, sys
from pathlib import Path
from ml.manifest import Manifest
from ml.train import train
from ml.train_config import from_dict
folder = Path(sys.argv[1])
config = from_dict(json.loads((folder / "config.json").read_text()))
train(Manifest.load(folder / "manifest.json"), folder / "images", config, folder / "run",
      on_event=lambda event: print(json.dumps(event), flush=True))
"""


@pytest.mark.faults
def test_nothing_outlives_a_killed_parent_and_the_run_goes_on(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    config = datasets.config(devices=2, batch_size=2, epochs=60, checkpoint_steps=2)
    manifest.save(tmp_path / "manifest.json")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "checkpoint":
            break
    assert len(ranks_of(tmp_path / "run")) == 2
    child.kill()
    child.wait()
    until = time.monotonic() + 30
    while ranks_of(tmp_path / "run"):
        assert time.monotonic() < until, "left behind"
        time.sleep(0.1)
    events: list[Event] = []
    train(
        Manifest.load(tmp_path / "manifest.json"), images, from_dict(config.to_dict()), tmp_path / "run",
        resume=True, stop_after=4, on_event=events.append,
    )  # fmt: skip
    assert next(event["step"] for event in events if event["event"] == "resumed") >= 2
    assert (tmp_path / "run" / train_ranks.LOG).is_file()
