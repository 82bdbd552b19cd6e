"""Loads the models that a job pinned, once per process; a model that does not load is left alone for a while."""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db import registry
from db.errors import NotFound, Unavailable
from db.session import Database
from ml import artifact
from ml.batcher import Predicts
from ml.choice import Choice
from ml.errors import BackendError, ModelError
from worker import exporting
from worker.log import get
from worker.settings import WorkerSettings
from worker.sleeping import SleepingPredictor
from worker.tuned import Tuned

if TYPE_CHECKING:
    from ml.device_predictor import OnDevice

# Of torch and of the device come RuntimeError (CUDA's errors among them), ValueError, ImportError and MemoryError.
DOES_NOT_LOAD = (ModelError, NotFound, OSError, RuntimeError, ValueError, ImportError, MemoryError)


class ModelUnavailable(Exception):
    """A pinned model does not load here and now; its chunks go back unharmed. `retry_s`: when to try again."""

    code = "model_unavailable"

    def __init__(self, refs: frozenset[str], retry_s: float) -> None:
        super().__init__(f"models {', '.join(sorted(refs))} do not load")
        self.refs = refs
        self.retry_s = retry_s


class Predictors:
    """One predictor per set of models. Used from one thread, but for `not_loaded`.

    The pause after a failure doubles, up to `LONGEST` times the setting: whoever mends a model waits no longer.
    """

    LONGEST = 4

    def __init__(self, settings: WorkerSettings, database: Database, device: str) -> None:
        self._settings = settings
        self._database = database
        self._networks = exporting.Networks(settings.model_root)
        self._device = device
        self._loaded: dict[frozenset[str], Predicts] = {}
        self._paused: dict[frozenset[str], tuple[float, float]] = {}  # refs → (until, length of the pause)
        self._not_loaded: dict[frozenset[str], tuple[float, dict[str, Any]]] = {}  # refs → (told until, what)
        self._log = get("infer")

    def not_loaded(self) -> list[dict[str, Any]]:
        """What does not load now, for the heartbeat: {"models": [refs], "code", "reason"}. From any thread.

        What nobody has asked for lately is not told: its jobs are gone, or another process has them.
        """
        now = time.monotonic()
        return [entry for until, entry in list(self._not_loaded.values()) if now < until]

    def get(self, models: Mapping[str, str]) -> Predicts:
        """The predictor of these models ({task: "name@version"}, not empty). Raises ModelUnavailable.

        Weights are checked against the SHA-256 that the registry remembers before they are used.
        """
        refs = frozenset(models.values())
        if refs in self._loaded:
            return self._loaded[refs]
        retry_s = self._settings.model_retry_s
        until, pause = self._paused.get(refs, (0.0, retry_s / 2))
        now = time.monotonic()
        if now < until:
            raise ModelUnavailable(refs, until - now)
        started = time.perf_counter()
        try:
            predictor = self._load(sorted(refs))
        except Unavailable as error:
            raise ModelUnavailable(refs, 1.0) from error
        except DOES_NOT_LOAD as error:
            pause = min(pause * 2, retry_s * self.LONGEST)
            self._paused[refs] = (now + pause, pause)
            code, reason = getattr(error, "code", "model_unavailable"), str(error) or type(error).__name__
            told = now + pause + retry_s * self.LONGEST
            self._not_loaded[refs] = (told, {"models": sorted(refs), "code": code, "reason": reason})
            self._log.error("model does not load", models=sorted(refs), code=code, error=reason, retry_s=pause)
            raise ModelUnavailable(refs, pause) from error
        self._paused.pop(refs, None)
        self._not_loaded.pop(refs, None)
        self._loaded[refs] = predictor
        backends = {ref: chosen.backend.name for ref, chosen in predictor.backends.items()}
        self._log.info("models loaded", backends=backends, seconds=round(time.perf_counter() - started, 2))
        return predictor

    def _load(self, refs: Sequence[str]) -> Predicts:
        """Without torch where every model can do without."""
        settings = self._settings
        with self._database.transaction() as session:
            expected = {ref: registry.by_ref(session, ref).sha256 for ref in refs}
        folders = {ref: folder(settings.model_root, *_parts(ref)) for ref in refs}
        if settings.test_build and settings.sleep_ms:
            cards = [artifact.card_of(folders[ref], expected[ref]) for ref in refs]
            return SleepingPredictor(cards, seconds=settings.sleep_ms / 1000, batch_size=settings.batch_size)
        choices = self._choices(expected)
        if settings.spare_torch and self._device == "cpu" and settings.backend in ("auto", "openvino"):
            models = [(artifact.card_of(folders[ref], expected[ref]), expected[ref], folders[ref]) for ref in refs]
            try:
                return exporting.predictor(
                    self._networks, models, batch_size=settings.batch_size, threads=settings.threads, choices=choices
                )
            except (BackendError, OSError) as error:
                self._log.info("models need torch", models=refs, reason=str(error))

        return self._with_torch(expected, folders, choices)

    def _with_torch(
        self, expected: Mapping[str, str], folders: Mapping[str, Path], choices: Mapping[str, Choice]
    ) -> Predicts:
        from ml import lanes
        from ml.predictor import Predictor

        settings, gpu = self._settings, lanes.name(self._device)
        tuned = None if gpu is None else Tuned(settings.model_root, device=gpu)
        known = None if tuned is None else tuned.batch(expected.values())
        predictor = Predictor(
            [artifact.load(folders[ref], sha256) for ref, sha256 in expected.items()],
            device=self._device,
            backend=settings.backend,
            batch_size=settings.batch_size or known,
            threads=settings.threads,
            choices=choices,
            decoder=settings.gpu_decode,
            decode_threads=settings.decoders(gpu=gpu is not None),
        )
        if tuned is not None and predictor.gpu is not None:
            self._say(tuned, expected.values(), predictor.gpu, predictor.batch_size)
        return predictor

    def _say(self, tuned: Tuned, weights: Collection[str], gpu: "OnDevice", batch: int) -> None:
        """Log how a GPU runs the models, and remember the batch size that was searched for."""
        decoder, why = gpu.decoder
        self._log.info(
            "models on a GPU", gpu=tuned.device, batch=batch, searched=gpu.searched, decoder=decoder,
            not_nvjpeg=why, no_graphs=gpu.line.no_graphs,
        )  # fmt: skip
        if not gpu.searched:
            return
        try:
            tuned.remember_batch(weights, batch, images_s=gpu.searched.get(batch))
        except OSError as error:
            self._log.warning("batch size not remembered", error=str(error))

    def _choices(self, sha256_of: Mapping[str, str]) -> dict[str, Choice]:
        """What `tagmill tune` found for these models on this kind of machine."""
        tuned = Tuned(self._settings.model_root)
        found = {ref: tuned.choice(sha256, self._settings.threads) for ref, sha256 in sha256_of.items()}
        return {ref: choice for ref, choice in found.items() if choice is not None}


def _parts(ref: str) -> tuple[str, str]:
    name, _, version = ref.rpartition("@")
    return name, version


def folder(model_root: Path, name: str, version: str) -> Path:
    """Where the artifact of a model is installed."""
    return model_root / name / version
