"""The predictor as it runs on a GPU, on lanes of the CPU: the same scores, whatever goes wrong on the way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ml import backends, batcher, device_decode, device_predictor
from ml.artifact import Artifact
from ml.batcher import Failure, Timings
from ml.device_decode import suits
from ml.errors import PredictError, PrepareError
from ml.lanes import HostLanes
from ml.predictor import Predictor
from ml.tiny import expected, make_tiny
from ml.working_copy import decode
from tests.ml.conftest import jpeg, png

COLOURS = [(200, 20, 30), (10, 220, 40), (20, 30, 240), (128, 128, 128), (0, 0, 0), (250, 250, 10), (90, 10, 200)]
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def line_of(predictor: Predictor) -> Any:
    assert predictor.gpu is not None
    return predictor.gpu.line


def data(count: int) -> list[bytes]:
    return [png(COLOURS[at % len(COLOURS)]) for at in range(count)]


def check(results: Sequence[Any], *, within: float = 1e-4) -> None:
    for at, result in enumerate(results):
        wanted = expected("tags", COLOURS[at % len(COLOURS)])
        assert result["tiny-tags@1"].as_dict() == pytest.approx(wanted, abs=within), at


def given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


class Greedy:
    """Out of memory above `limit` pictures. `sizes`: of the batches that came."""

    name = "greedy"

    def __init__(self, inner: backends.Backend, limit: int) -> None:
        self.inner, self.limit = inner, limit
        self.sizes: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise OUT_OF_MEMORY
        return self.inner.forward(batch)


def greedy(predictor: Predictor, limit: int) -> Greedy:
    (model,) = predictor._models
    backend = Greedy(model.chosen.backend, limit)
    predictor._models = [replace(model, chosen=backends.Chosen(backend, 0.0))]
    return backend


@pytest.fixture
def on_lanes(tiny_tags: Artifact) -> Predictor:
    return Predictor([tiny_tags], backend="fused", batch_size=4, on=HostLanes())


def test_the_same_scores_as_on_the_cpu(tiny_tags: Artifact, tiny_moderation: Artifact) -> None:
    models = [tiny_tags, tiny_moderation]
    usual, ours = Predictor(models, backend="fused"), Predictor(models, backend="fused", batch_size=4, on=HostLanes())
    assert (usual.depth, usual.figures) == (0, {})
    for count in (0, 1, 3, 4, 11):
        copies = data(count)
        here = usual.predict([usual.prepare(each) for each in copies])
        there = ours.predict([ours.prepare(each) for each in copies])
        assert len(here) == len(there) == count
        for one, other in zip(here, there, strict=True):
            for ref, scores in one.items():
                assert other[ref].as_dict() == pytest.approx(scores.as_dict(), abs=1e-6)
    assert ours.depth == 2
    assert ours.figures["device_busy_s"] > 0


def test_on_a_cpu_submit_predicts(tiny_tags: Artifact) -> None:
    usual = Predictor([tiny_tags], backend="fused")
    pending = usual.submit([usual.prepare(each) for each in data(3)])
    assert pending.ready()
    check(pending.result())


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(on_lanes: Predictor) -> None:
    before = on_lanes.submit([on_lanes.prepare(each) for each in data(4)])
    line_of(on_lanes)._begin(4)  # the next batch is the first that this backend sees
    backend = greedy(on_lanes, 1)
    during = on_lanes.submit([on_lanes.prepare(each) for each in data(7)])
    assert len(during.result()) == 7
    check(before.result())
    check(during.result())
    assert backend.sizes[:3] == [4, 2, 1]
    assert (on_lanes.batch_size, on_lanes.figures["device_out_of_memory"]) == (1, 2)


def test_a_single_picture_that_does_not_fit(on_lanes: Predictor) -> None:
    line_of(on_lanes)._begin(4)
    greedy(on_lanes, 0)
    with pytest.raises(PredictError) as caught:
        on_lanes.predict([on_lanes.prepare(png((1, 2, 3)))])
    assert caught.value.code == "out_of_memory"


def test_another_error_is_not_taken_for_memory(on_lanes: Predictor) -> None:
    line_of(on_lanes)._begin(4)
    (model,) = on_lanes._models

    class Broken:
        name = "broken"

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    on_lanes._models = [replace(model, chosen=backends.Chosen(Broken(), 0.0))]
    with pytest.raises(RuntimeError, match="mat1"):
        on_lanes.predict([on_lanes.prepare(png((1, 2, 3)))])
    assert on_lanes.batch_size == 4


def test_memory_that_runs_out_at_a_second_look(tiny_moderation: Artifact) -> None:
    card = replace(tiny_moderation.card, preset={**tiny_moderation.card.preset, "views": 4, "sure": 1.0})
    artifact = replace(tiny_moderation, card=card)
    usual = Predictor([artifact], backend="reference")
    ours = Predictor([artifact], backend="reference", batch_size=4, on=HostLanes())
    copies = data(7)
    wanted = usual.predict([usual.prepare(each) for each in copies])
    pending = ours.submit([ours.prepare(each) for each in copies])
    greedy(ours, 2)
    for one, other in zip(wanted, pending.result(), strict=True):
        assert not isinstance(other, PrepareError)
        assert other["tiny-moderation@1"].as_dict() == pytest.approx(one["tiny-moderation@1"].as_dict(), abs=1e-5)
    assert ours.figures["device_out_of_memory"] == 1


def test_graphs_that_say_something_else_are_refused(tiny_tags: Artifact) -> None:
    class Wrong(HostLanes):
        def capture(self, run: Any) -> Any:
            outputs = run()
            return (lambda: None), [output * 0 for output in outputs]

    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, on=Wrong())
    assert "differ" in predictor.backends["tiny-tags@1"].refused["cuda-graphs"]
    check(predictor.predict([predictor.prepare(each) for each in data(6)]))


def test_a_network_that_cannot_be_captured_says_so(tiny_tags: Artifact) -> None:
    class Refusing(HostLanes):
        def capture(self, run: Any) -> Any:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, on=Refusing())
    assert predictor.backends["tiny-tags@1"].refused == {"cuda-graphs": "cudaErrorStreamCaptureUnsupported"}
    check(predictor.predict([predictor.prepare(each) for each in data(6)]))


def test_the_batch_size_is_searched_where_none_is_given(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="fused", on=HostLanes())
    assert predictor.gpu is not None
    assert 16 in predictor.gpu.searched
    assert predictor.batch_size in predictor.gpu.searched
    check(predictor.predict([predictor.prepare(each) for each in data(40)]))


class Small(HostLanes):
    """A device on which no more than 20 pictures fit."""

    def capture(self, run: Any) -> Any:
        replay, outputs = super().capture(run)
        if len(outputs[0]) > 20:
            raise OUT_OF_MEMORY
        return replay, outputs


def test_the_search_survives_a_batch_that_does_not_fit(tiny_tags: Artifact) -> None:
    predictor = Predictor([tiny_tags], backend="fused", on=Small())
    assert predictor.gpu is not None
    assert (predictor.batch_size, list(predictor.gpu.searched)) == (16, [16])
    assert Predictor([tiny_tags], backend="fused", batch_size=64, on=Small()).batch_size == 16


# Decoding on the device: here by the CPU's decoder in its place.


@pytest.fixture
def nvjpeg(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that "the device" decoded. A truncated file fails its whole batch, as on a GPU."""
    batches: list[int] = []

    def decoded(encoded: Sequence[bytes], device: torch.device) -> list[torch.Tensor]:
        batches.append(len(encoded))
        try:
            return [decode(each) for each in encoded]
        except PrepareError as error:
            raise RuntimeError(f"nvjpegDecode failed: {error}") from None

    monkeypatch.setattr(device_decode, "_nvjpeg", decoded)
    return batches


def test_the_device_decodes_what_suits_it(tiny_tags: Artifact, nvjpeg: list[int]) -> None:
    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, decoder="nvjpeg", on=HostLanes())
    assert predictor.gpu is not None
    assert predictor.gpu.decoder == ("nvjpeg", None)
    del nvjpeg[:]
    sizes = [(40, 30), (30, 40), (40, 30)]
    copies = [jpeg(COLOURS[at % 7], sizes[at % 3]) if at % 4 else png(COLOURS[at % 7]) for at in range(11)]
    prepared = [predictor.prepare(each) for each in copies]
    assert [each.encoded is None for each in prepared] == [at % 4 == 0 for at in range(11)]
    check(predictor.predict(prepared), within=0.02)
    assert nvjpeg == [3, 3, 2]


def test_one_broken_picture_fails_alone_also_where_the_device_decodes(tiny_tags: Artifact, nvjpeg: list[int]) -> None:
    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, decoder="nvjpeg", on=HostLanes())
    whole = jpeg(COLOURS[0])
    broken = whole[: len(whole) // 2] + b"\xff\xd9"
    with pytest.raises(PrepareError):
        decode(broken)
    source = [(at, given(broken if at == 5 else jpeg(COLOURS[0]))) for at in range(10)]
    results = dict(batcher.stream(source, predictor))
    failed = results.pop(5)
    assert isinstance(failed, Failure)
    assert failed.code == "corrupt_working_copy"
    assert all(
        not isinstance(each, Failure) and each["tiny-tags@1"].top(1)[0].label == "red" for each in results.values()
    )
    assert predictor.figures["device_decoded_here"] == 4
    with pytest.raises(PrepareError):
        predictor.predict([predictor.prepare(broken)])


def test_a_decoder_with_other_scores_is_refused(
    tiny_tags: Artifact, nvjpeg: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = device_decode._nvjpeg
    monkeypatch.setattr(
        device_decode, "_nvjpeg", lambda data, device: [each.flip(0) for each in whole(data, device)]
    )  # fmt: skip
    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, decoder="nvjpeg", on=HostLanes())
    assert predictor.gpu is not None
    name, why = predictor.gpu.decoder
    assert name == "cpu"
    assert "differ" in str(why)
    assert predictor.prepare(jpeg((1, 2, 3))).encoded is None


def test_a_device_that_does_not_decode_is_refused(tiny_tags: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(data: Sequence[bytes], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nand more")

    monkeypatch.setattr(device_decode, "_nvjpeg", missing)
    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, decoder="nvjpeg", on=HostLanes())
    assert predictor.gpu is not None
    assert predictor.gpu.decoder == ("cpu", "decode_jpegs_cuda: torchvision not compiled with nvJPEG support")
    check(predictor.predict([predictor.prepare(each) for each in data(6)]))


@pytest.mark.parametrize(("device_s", "taken"), [(1000.0, "nvjpeg"), (10.0, "cpu")])
def test_auto_takes_what_is_faster(
    tiny_tags: Artifact, nvjpeg: list[int], monkeypatch: pytest.MonkeyPatch, device_s: float, taken: str
) -> None:
    speeds = iter([100.0, device_s])  # a thread's first
    monkeypatch.setattr(device_predictor.device_decode, "images_s", lambda run, pictures: next(speeds))
    predictor = Predictor([tiny_tags], backend="fused", batch_size=4, decoder="auto", decode_threads=4, on=HostLanes())
    assert predictor.gpu is not None
    assert predictor.gpu.decoder[0] == taken


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (jpeg((1, 2, 3)), True),
        (jpeg((1, 2, 3))[:-1], False),
        (png((1, 2, 3)), False),
        (b"", False),
        (b"\xff\xd8\xff\xd9", False),
        (b"\xff\xd8\xff\xe0\x00\x00\xff\xd9", False),
    ],
)
def test_what_suits_a_device(data: bytes, wanted: bool) -> None:
    assert suits(data) is wanted


@pytest.mark.parametrize("options", [{"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_what_our_encoder_does_not_make_is_left_to_the_cpu(options: dict[str, Any]) -> None:
    from tests.ml.pictures import canonical, encoded

    mode = options.pop("mode", "RGB")
    assert not suits(encoded(canonical().convert(mode), "JPEG", **options))


# The batcher, with batches under way.


def test_a_stream_over_a_device_answers_in_order(tmp_path: Path) -> None:
    predictor = Predictor([make_tiny(tmp_path, "tags")], backend="fused", batch_size=4, on=HostLanes())
    timings = Timings()
    bad = {3: b"", 11: b"<html>"}
    source = [(at, given(bad.get(at, png(COLOURS[at % 7])))) for at in range(26)]
    results = list(batcher.stream(source, predictor, decode_threads=3, timings=timings))
    assert [key for key, _ in results] == list(range(26))
    for at, result in results:
        if isinstance(result, Failure):
            assert at in bad
        else:
            assert result["tiny-tags@1"].as_dict() == pytest.approx(expected("tags", COLOURS[at % 7]), abs=1e-4)
    assert (timings.pictures, timings.failures, timings.batches) == (26, 2, 6)
    assert timings.wall_s > 0


class Slow:
    """A predictor whose batches are never ready before they are asked for; `held`: most batches under way at once."""

    batch_size, depth = 2, 2
    backends: dict[str, Any] = {}  # noqa: RUF012
    figures: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, fails_at: int = -1) -> None:
        self.under_way = self.held = self.sent = 0
        self.fails_at = fails_at

    def prepare(self, data: bytes) -> bytes:
        return data

    def predict(self, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
        raise AssertionError("a device is given its batches ahead")

    def submit(self, pictures: Sequence[bytes]) -> Any:
        if self.sent == self.fails_at:
            raise RuntimeError("an illegal memory access was encountered")
        self.sent += 1
        self.under_way += 1
        self.held = max(self.held, self.under_way)

        def result() -> list[dict[str, Any]]:
            self.under_way -= 1
            return [{} for _ in pictures]

        return device_predictor.Pending(lambda: False, result)  # type: ignore[arg-type]


def test_no_more_batches_are_under_way_than_the_device_takes() -> None:
    slow = Slow()
    results = list(batcher.stream([(at, given(b"x")) for at in range(15)], slow))
    assert [key for key, _ in results] == list(range(15))
    assert slow.held == 3  # two, and the one that was just sent


def test_a_batch_that_fails_leaves_the_scores_of_those_before_it() -> None:
    results = batcher.stream([(at, given(b"x")) for at in range(12)], Slow(fails_at=3))
    got = []
    with pytest.raises(RuntimeError, match="illegal"):
        for key, _ in results:
            got.append(key)
    assert got == [0, 1, 2, 3, 4, 5]
