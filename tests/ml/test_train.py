"""Training on tiny data: it learns, stops where it must, and goes on after a SIGKILL with the same result."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from ml import architectures, artifact, batchnorm, checkpoint, heads
from ml.architectures import TinyColour
from ml.augment import Augmentation
from ml.errors import ArtifactError, DatasetError, TrainingError, TrainingStopped
from ml.manifest import Entry, Group, Manifest
from ml.predictor import Predictor
from ml.train import train
from ml.train_config import TrainConfig, from_dict
from tests.ml import datasets
from tests.ml.conftest import jpeg

Event = dict[str, Any]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def manifest(images: Path) -> Manifest:
    return datasets.coloured(images)


def test_it_learns_and_the_artifact_serves(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    made = train(manifest, images, datasets.config(epochs=6), tmp_path / "run", on_event=events.append)
    assert made.card.metrics["validation"]["colour"] == 1.0
    assert made.card.data_manifest_sha256 == manifest.sha256
    assert made.card.head == {"colour": "softmax", "warm": "sigmoid"}
    loaded = artifact.load(tmp_path / "run" / "model", made.sha256)
    predictor = Predictor([loaded])
    for label, colour in datasets.COLOURS.items():
        (scores,) = predictor.predict([predictor.prepare(jpeg(colour))])
        found = scores[made.card.ref].as_dict()
        assert max(datasets.COLOURS, key=lambda name: found[name]) == label
        assert (found["warm"] > 0.5) == (label == "red")
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 7 * (24 // 4)
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_weights(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    how = Augmentation(colour=0.2, rand_operations=1, mixup=0.4, cutmix=1.0)
    digests = [
        train(manifest, images, datasets.config(seed=seed, augmentation=how), tmp_path / str(at)).sha256
        for at, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


CHILD = """
import json, sys, time
from pathlib import Path
from ml.manifest import Manifest
from ml.train import train
from ml.train_config import from_dict
folder, out, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def tell(event):
    print(json.dumps(event), flush=True)
    if event["event"] == "step" and event["step"] == stop:
        time.sleep(600)
config = from_dict(json.loads((folder / "config.json").read_text()))
made = train(Manifest.load(folder / "manifest.json"), folder / "images", config, out, resume=True, on_event=tell)
print(json.dumps({"event": "done", "sha256": made.sha256, "metrics": made.card.to_dict()["metrics"]}), flush=True)
"""


def _child(folder: Path, out: Path, stop: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, str(folder), str(out), str(stop)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ})


@pytest.mark.faults
@pytest.mark.parametrize("stop", [9, 12])  # in the middle of an epoch, between checkpoints; after its last step
def test_a_killed_run_goes_on_to_the_same_weights(manifest: Manifest, images: Path, tmp_path: Path, stop: int) -> None:
    config = datasets.config(checkpoint_steps=4, patience=3, augmentation=Augmentation(colour=0.2, mixup=0.4))
    manifest.save(tmp_path / "manifest.json")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    whole = train(manifest, images, config, tmp_path / "whole")

    child = _child(tmp_path, tmp_path / "killed", stop)
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line).get("step") == stop and json.loads(line)["event"] == "step":
            break
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL

    output, _ = _child(tmp_path, tmp_path / "killed", -1).communicate(timeout=120)
    events = [json.loads(line) for line in output.splitlines()]
    assert {"event": "resumed", "step": 8} in events
    assert events[-1]["sha256"] == whole.sha256
    assert events[-1]["metrics"] == whole.card.to_dict()["metrics"]


def test_a_checkpoint_of_other_data_or_settings_is_refused(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    train(manifest, images, datasets.config(), tmp_path / "run")
    for other, config in (
        (replace(manifest, version="2"), datasets.config()),
        (manifest, datasets.config(lr=0.01)),
    ):
        with pytest.raises(TrainingError, match="checkpoint_mismatch"):
            train(other, images, config, tmp_path / "run", resume=True)


def test_data_that_changed_since_the_hash_are_refused(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    changed = images / manifest.entries[5].image
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(DatasetError) as caught:
        train(manifest, images, datasets.config(), tmp_path / "run")
    assert (caught.value.code, caught.value.field) == ("dataset_changed", changed.name)


def test_a_broken_picture_is_skipped_and_said(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    import hashlib

    first = manifest.entries[0]
    (images / first.image).write_bytes(b"no picture")
    digest = hashlib.sha256(b"no picture").hexdigest()
    broken = replace(manifest, entries=(replace(first, sha256=digest), *manifest.entries[1:]))
    events: list[Event] = []
    made = train(broken, images, datasets.config(), tmp_path / "run", on_event=events.append)
    assert events[0] == {"event": "picture_skipped", "image": first.image, "code": "not_an_image"}
    assert made.card.metrics["pictures"] == 23


class Hungry(TinyColour):
    """Takes two pictures at once at most; counts what it was given."""

    seen: list[int]

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_says_so(
    manifest: Manifest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(architectures.OWN, "hungry", Hungry)
    events: list[Event] = []
    config = datasets.config(architecture="hungry", batch_size=8, epochs=8)
    made = train(manifest, images, config, tmp_path / "run", on_event=events.append)
    said = [event for event in events if event["event"] == "out_of_memory"]
    assert [(event["batch"], event["accumulation"]) for event in said] == [(4, 2), (2, 4)]
    assert made.card.metrics["validation"]["colour"] == 1.0


def test_a_single_picture_too_large_is_an_error(
    manifest: Manifest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Starving(TinyColour):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError

    monkeypatch.setitem(architectures.OWN, "starving", Starving)
    with pytest.raises(TrainingError, match="out_of_memory"):
        train(manifest, images, datasets.config(architecture="starving"), tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_checkpoint(
    manifest: Manifest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poisoned(TinyColour):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            return super().forward(x) * (math.nan if self.calls > 9 else 1)

    monkeypatch.setitem(architectures.OWN, "poisoned", Poisoned)
    with pytest.raises(TrainingError) as caught:
        train(manifest, images, datasets.config(architecture="poisoned", checkpoint_steps=4), tmp_path / "run")
    assert (caught.value.code, caught.value.step) == ("loss_not_finite", 9)
    assert caught.value.checkpoint == str(tmp_path / "run" / checkpoint.FILE)
    saved = checkpoint.load(tmp_path / "run")
    assert saved.state["step"] == 8
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.tensors.values())


def test_accumulation_takes_the_same_steps(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    """Without BatchNorm's batch statistics, that is in the head's stage, parts add up to the whole."""
    runs = [
        train(manifest, images, datasets.config(batch_size=size, accumulation=8 // size, epochs=0, head_epochs=3),
              tmp_path / str(size))
        for size in (8, 2)
    ]  # fmt: skip
    for name, tensor in runs[0].state.items():
        torch.testing.assert_close(tensor.float(), runs[1].state[name].float(), rtol=1e-4, atol=1e-5)


def test_the_head_stage_leaves_all_other_layers(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    before = train(manifest, images, datasets.config(epochs=1, head_epochs=0), tmp_path / "a")
    after = train(manifest, images, datasets.config(epochs=0, head_epochs=2, seed=9), tmp_path / "b", init=before)
    moved = {name for name in before.state if not torch.equal(before.state[name], after.state[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert after.card.parent == "tiny@1"


def test_early_stopping_keeps_the_best(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = datasets.config(epochs=40, patience=2)
    made = train(manifest, images, config, tmp_path / "run", on_event=events.append)
    scores = [event["metrics"]["score"] for event in events if event["event"] == "epoch"]
    assert len(scores) < 41
    assert made.card.metrics["validation"]["score"] == max(scores)
    assert made.card.metrics["epochs"] == scores.index(max(scores)) + 1


def test_the_last_epochs_may_see_plain_pictures(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    """Up to the plain epochs a run is the one that mixes; from there on it is not. A run resumed in them agrees."""
    mixed = datasets.config(epochs=2, augmentation=Augmentation(mixup=0.5, mix_share=1.0, rand_operations=1))
    plain = replace(mixed, plain_epochs=1)
    losses: dict[str, list[float]] = {}
    for name, config in {"mixed": mixed, "plain": plain}.items():
        heard = losses.setdefault(name, [])
        train(
            manifest, images, config, tmp_path / name,
            on_event=lambda event, heard=heard: heard.append(event["loss"]) if event["event"] == "step" else None,
        )  # fmt: skip
    (steps,) = {len(found) // 3 for found in losses.values()}
    assert losses["mixed"][: 2 * steps] == losses["plain"][: 2 * steps]
    assert losses["mixed"][2 * steps] != losses["plain"][2 * steps]
    train(manifest, images, plain, tmp_path / "resumed", stop_after=2)
    resumed = train(manifest, images, plain, tmp_path / "resumed", resume=True)
    whole = artifact.load(tmp_path / "plain" / "model")
    assert all(bool((whole.state[name] == value).all()) for name, value in resumed.state.items())


def test_half_weights_are_half(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    made = train(manifest, images, datasets.config(half_weights=True), tmp_path / "run")
    assert {t.dtype for t in made.state.values()} == {torch.float16, torch.int64}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"train_split": "nothing"}, "nothing"),
        ({"train_split": "validation"}, None),
    ],
)
def test_a_split_without_pictures(
    manifest: Manifest, images: Path, tmp_path: Path, change: dict[str, str], field: str | None
) -> None:
    config = datasets.config(**change)
    if field is None:
        assert train(manifest, images, config, tmp_path / "run").card.metrics["pictures"] == 12
        return
    with pytest.raises(DatasetError) as caught:
        train(manifest, images, config, tmp_path / "run")
    assert (caught.value.code, caught.value.field) == ("dataset_empty", field)


def test_empty_and_single_classes_are_refused(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    colours = Group("exclusive", (*datasets.COLOURS, "mauve"))
    with pytest.raises(DatasetError) as caught:
        train(
            replace(manifest, groups={**manifest.groups, "colour": colours}),
            images,
            datasets.config(),
            tmp_path / "run",
        )
    assert (caught.value.code, caught.value.field) == ("class_missing", "colour:mauve")
    one = Manifest("one", "1", {"g": Group("exclusive", ("a",))}, (Entry("x", "0" * 64, {"g": "a"}, "train", {}),))
    with pytest.raises(DatasetError, match="nothing to tell apart"):
        heads.heads(one, one.entries, 0.0)


def _manifest_of(labels: list[str | None]) -> tuple[Manifest, tuple[Entry, ...]]:
    entries = tuple(Entry(str(at), "0" * 64, {"g": label}, "train", {}) for at, label in enumerate(labels))
    return Manifest("m", "1", {"g": Group("exclusive", ("a", "b"))}, entries), entries


def test_the_loss_is_cross_entropy_and_leaves_out_what_nobody_knows() -> None:
    manifest, entries = _manifest_of(["a", "b", "b", None])
    own, wanted = heads.heads(manifest, entries, 0.0), heads.targets(manifest, entries)
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    found = heads.loss(own, logits, wanted, wanted, 1.0, 0.1)
    expected = F.cross_entropy(logits[:3], torch.tensor([0, 1, 1]), label_smoothing=0.1, reduction="sum") / 4
    torch.testing.assert_close(found, expected)


def test_balance_gives_rare_labels_the_same_say() -> None:
    manifest, entries = _manifest_of(["a", "b", "b", "b"])
    (head,) = heads.heads(manifest, entries, 1.0)
    assert (head.weights * torch.tensor([1.0, 3.0])).tolist() == pytest.approx([2.0, 2.0])


def test_folded_batchnorm_gets_its_statistics_back() -> None:
    torch.manual_seed(1)
    network = mobilenet_v2(num_classes=3).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 1.3  # so that the activations are no longer those of a fresh network
        elif isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_(0, 0.3)
            module.running_var.fill_(1 - module.eps)  # type: ignore[union-attr]
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        before = network(batch)
        assert batchnorm.is_folded(network)
        batchnorm.unfold(network, [batch[:4], batch[4:]])
        assert not batchnorm.is_folded(network)
        assert float((network(batch) - before).norm() / before.norm()) < 1e-3
        # The batch's own statistics are now the stored ones: training starts where inference stood.
        assert float((network.train()(batch) - before).norm() / before.norm()) < 0.05


def test_init_from_torchvision_weights_takes_all_but_the_head(tmp_path: Path, manifest: Manifest) -> None:
    published = mobilenet_v2(num_classes=1000).state_dict()
    save_file(published, tmp_path / "w.safetensors")
    network, last = heads.network("mobilenet_v2", manifest, tmp_path / "w.safetensors")
    state = network.state_dict()
    assert last == "classifier.1"
    assert all(torch.equal(state[name], published[name]) for name in state if not name.startswith(last))
    assert state["classifier.1.weight"].shape == (4, 1280)
    with pytest.raises(ArtifactError, match="weights_mismatch"):
        heads.network("mobilenet_v3_small", manifest, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(ArtifactError, match="weights_invalid"):
        heads.network("mobilenet_v2", manifest, tmp_path / "w.safetensors")


def test_init_from_an_artifact_keeps_the_labels_it_knows(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    first = train(manifest, images, datasets.config(), tmp_path / "a")
    more = replace(manifest, groups={**manifest.groups, "colour": Group("exclusive", ("mauve", *datasets.COLOURS))})
    network, _ = heads.network("tiny_colour", more, first)
    known, fresh = first.state["classifier.weight"], network.state_dict()["classifier.weight"]
    assert torch.equal(fresh[1:], known)
    assert not torch.equal(fresh[0], known[0])


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "efficientnet_b0", "resnet18", "squeezenet1_1", "convnext_tiny"]
)
def test_the_last_layer_of_torchvision_classifiers_is_found(name: str) -> None:
    network = architectures.build(name, 7)
    module = network.get_submodule(heads.last_layer(network, 7))
    assert isinstance(module, nn.Linear | nn.Conv2d)
    module.bias.data.fill_(123.0)  # type: ignore[union-attr]
    module.weight.data.zero_()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).tolist() == [[123.0] * 7]


def test_a_config_survives_json_and_refuses_nonsense() -> None:
    config = datasets.config(augmentation=Augmentation(crop_scale=(0.3, 0.9), mixup=0.2), taxonomy={"g:a": "gpc:1"})
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.sha256() != datasets.config().sha256()
    assert replace(config, version="2", taxonomy={}).sha256() == config.sha256()
    refused: list[Callable[[], TrainConfig]] = [
        lambda: from_dict({"name": "x", "learning_rate": 1}),
        lambda: datasets.config(batch_size=0),
        lambda: datasets.config(label_smoothing=1.0),
        lambda: datasets.config(epochs=0, head_epochs=0),
    ]
    for make in refused:
        with pytest.raises(TrainingError, match="config_invalid"):
            make()


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", "abc"), ("lr", math.inf), ("lr", math.nan), ("epochs", 1.5), ("epochs", True), ("size", 100_000),
     ("workers", 10_000), ("epochs", 10**9), ("threads", -1), ("seed", None), ("device", 3), ("fast", 1),
     ("augmentation", {"mixup": "much"}), ("augmentation", {"rand_operations": 0.5}),
     ("augmentation", {"crop_scale": "ab"})],
)  # fmt: skip
def test_a_setting_of_another_kind_or_size_is_named(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"config_invalid.*{name}"):
        from_dict({"name": "x", name: value})


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from ml.manifest import Manifest
from ml.train import train
from ml.train_config import from_dict
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
free = resource.getrlimit(resource.RLIMIT_FSIZE)
def tell(event):
    print(json.dumps(event), flush=True)
    if event["event"] == "checkpoint" and event["step"] == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, free[1]))
    if event["event"] == "step" and event["step"] == 14:
        print(json.dumps({"event": "kept", "bytes": (folder / "run" / "checkpoint.safetensors").read_bytes().hex()}))
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
config = from_dict(json.loads((folder / "config.json").read_text()))
made = train(Manifest.load(folder / "manifest.json"), folder / "images", config, folder / "run", on_event=tell)
print(json.dumps({"event": "done", "sha256": made.sha256}), flush=True)
"""


@pytest.mark.faults
def test_a_disk_that_fills_while_checkpointing_costs_only_that_checkpoint(
    manifest: Manifest, images: Path, tmp_path: Path
) -> None:
    """A real failing write: for a while no file may grow past 64 bytes (RLIMIT_FSIZE)."""
    config = datasets.config(epochs=2)
    manifest.save(tmp_path / "manifest.json")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    whole = train(manifest, images, config, tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (failed,) = [event for event in events if event["event"] == "checkpoint_failed"]
    assert failed["step"] == 12
    assert "File too large" in failed["detail"]
    (kept,) = [event for event in events if event["event"] == "kept"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / checkpoint.FILE).write_bytes(bytes.fromhex(kept["bytes"]))
    assert checkpoint.load(tmp_path / "old").state["step"] == 6
    assert events[-1]["sha256"] == whole.sha256, "the training itself went on"


def test_a_stop_writes_a_checkpoint_and_the_rest_gives_the_same_weights(
    manifest: Manifest, images: Path, tmp_path: Path
) -> None:
    config = datasets.config(augmentation=Augmentation(colour=0.2, mixup=0.4))
    whole = train(manifest, images, config, tmp_path / "whole")
    steps: list[int] = []

    def hear(event: Event) -> None:
        if event["event"] == "step":
            steps.append(event["step"])

    with pytest.raises(TrainingStopped) as stopped:
        train(manifest, images, config, tmp_path / "run", on_event=hear, should_stop=lambda: len(steps) >= 9)
    assert (stopped.value.step, stopped.value.code) == (9, "training_stopped")
    assert stopped.value.checkpoint == str(tmp_path / "run" / checkpoint.FILE)
    assert train(manifest, images, config, tmp_path / "run", resume=True).sha256 == whole.sha256
    assert steps == list(range(1, 10))


@pytest.mark.parametrize(("able", "wanted"), [(True, True), (False, False)])
def test_on_cuda_the_forward_pass_is_bf16_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, able: bool, wanted: bool
) -> None:
    """Without a GPU only the choice can be tested; bf16 needs no loss scaling, so there is none to test."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert datasets.config(device="cuda:0", precision="auto").bf16() is wanted
    assert datasets.config(device="cuda:0", precision="fp32").bf16() is False


def test_threads_can_be_bounded_from_outside(manifest: Manifest, images: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen: list[int] = []
        for most, threads in ((1, 2), (1, None), (2, 1)):
            train(
                manifest, images, datasets.config(threads=threads, workers=8, epochs=0), tmp_path / f"{most}{threads}",
                max_threads=most, on_event=lambda event: seen.append(torch.get_num_threads()),
            )  # fmt: skip
        assert set(seen) == {1}
    finally:
        torch.set_num_threads(before)
