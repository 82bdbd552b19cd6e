"""From labelled pictures to an activated model in one go: import, train, calibrate, evaluate, activate.

    pictures ─► dataset ─► NAME@V-trained ─► NAME@V, calibrated ─► evaluation, report ─► gate ─► active
                                  └ several, from the same start ─► NAME@V-averaged

Every step leaves its outcome in the registry, so that the same call after an interruption goes on where it ended: the
dataset is known by its content, the run by its checkpoint, the model by its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from db import registry, training
from db.blob_store import Blobs
from db.errors import Conflict, NotFound
from db.promotion import Margins
from db.session import Database
from db.tables import Dataset, TrainingRun
from worker import activation, averaging, calibrating, evaluating, manifests
from worker.errors import WorkerError
from worker.recipes import Recipe, RecipeInvalid
from worker.train_runs import Event, Trainer

if TYPE_CHECKING:
    from ml.evaluation import Evaluation
    from ml.importers import Imported
    from ml.manifest import Manifest

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # where neither source nor recipe says
TRAINED, AVERAGED = "-trained", "-averaged"  # end the versions of networks before their calibration


class LearningStopped(WorkerError):
    """The training did not end with a model: it was stopped, cancelled, or failed; `code` says which."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make of what. `init`: start weights, a registered name@version or a file. `force`: a reason to activate
    past the gate."""

    source: Path
    images: Path | None
    recipe: Recipe
    name: str
    version: str | None = None
    init: str | None = None
    activate: bool = True
    force: str | None = None
    report_to: Path | None = None
    threads: int = 2
    actor: str = "cli"


@dataclass(frozen=True, slots=True)
class Learned:
    """The model, its evaluation, and the seconds of each step in this process; resumed steps are short."""

    ref: str
    dataset: str
    evaluation: "Evaluation"
    seconds: dict[str, float]


class Learning:
    """One pass through all steps. While `training`, `trainer.stop` may be set: it stops at its next step."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        model_root: Path,
        *,
        say: Callable[[str], None] = lambda text: None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.trainer = Trainer(database, blobs, model_root, on_event=on_event)
        self._database, self._blobs, self._root, self._say = database, blobs, model_root, say
        self._seconds: dict[str, float] = {}
        self.training = False

    def run(self, wanted: Wanted) -> Learned:
        """All but the activation. Raises RecipeInvalid, DatasetError, TrainingError, Conflict, LearningStopped."""
        recipe = wanted.recipe
        dataset, manifest = self._timed("import", lambda: self._dataset(wanted))
        version = wanted.version or self._version(wanted.name)
        ref = f"{wanted.name}@{version}"
        trained = self._timed("train", lambda: self._trained(wanted, dataset, version))
        self._timed("calibrate", lambda: self._calibrate(wanted, dataset, trained, version))
        split = recipe.evaluation.split or ("test" if manifest.split("test") else recipe.calibration.split)
        evaluation = self._timed("evaluate", lambda: self._evaluate(wanted, ref, dataset, split))
        return Learned(ref, dataset.ref, evaluation, self._seconds)

    def activate(self, wanted: Wanted, learned: Learned, margins: Margins) -> bool:
        """Make it the active version, unless another model is active that nothing compares it with: then say so.

        A first model needs no comparison, and a reason in `wanted.force` does without. Raises PromotionRefused.
        """
        name, _, version = learned.ref.rpartition("@")
        with self._database.transaction() as session:
            model = registry.by_ref(session, learned.ref)
            current = registry.active(session, model.task)
            gate = registry.gate(session, model, current, margins)
        if gate.open and gate.active is not None and not gate.on and wanted.force is None:
            self._say(f"not activated: {gate.active} is active and was not evaluated on the same pictures")
            self._say(f"compare them: tagmill evaluate {gate.active} {learned.dataset} --split"
                      f" {learned.evaluation.about.split}; or: tagmill models activate {learned.ref}")  # fmt: skip
            return False
        self._timed("activate", lambda: activation.activate(
            self._database, self._root, name, version, forced=wanted.force, margins=margins, actor=wanted.actor
        ))  # fmt: skip
        self._say(f"{learned.ref} is active for {model.task}")
        return True

    def _timed(self, step: str, work: Callable[[], Any]) -> Any:
        started = monotonic()
        try:
            return work()
        finally:
            self._seconds[step] = monotonic() - started

    def _dataset(self, wanted: Wanted) -> tuple[Dataset, "Manifest"]:
        from ml import splits

        imported = _imported(wanted)
        manifest, data = imported.manifest, wanted.recipe.data
        shares = dict(data.shares)
        if not shares and not manifest.split(wanted.recipe.calibration.split):
            shares = SHARES
            self._say("no validation pictures are set aside: " + ", ".join(f"{n} {s:.0%}" for n, s in shares.items()))
        if shares:
            manifest = splits.split(manifest, imported.hashes, shares, column=data.by, seed=data.seed)
        leaks = splits.leaks(manifest.entries, imported.hashes, data.by)
        root = wanted.images or (wanted.source if wanted.source.is_dir() else wanted.source.parent)
        found = {**imported.report.numbers(), "leaks": len(leaks)}
        dataset, manifest = self._stored(manifest, str(root.resolve()), found)
        said = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in found.items())
        self._say(f"dataset {dataset.ref}: {dataset.entries} pictures; {said}")
        return dataset, manifest

    def _stored(self, manifest: "Manifest", root: str, found: dict[str, int]) -> tuple[Dataset, "Manifest"]:
        """Under the lowest version that holds this content or none."""
        from dataclasses import replace

        number = 1
        while True:
            versioned = replace(manifest, version=str(number))
            try:
                return manifests.store(self._database, self._blobs, versioned, root, found), versioned
            except Conflict:
                number += 1

    def _version(self, name: str) -> str:
        with self._database.transaction() as session:
            return training.next_version(session, name)

    def _trained(self, wanted: Wanted, dataset: Dataset, version: str) -> str:
        """The reference of the network to calibrate: of the only training, or the mean of several."""
        refs = [self._train(wanted, dataset, version + TRAINED, {})]
        first = wanted.recipe.train.get("seed", 0)
        for number, seed in enumerate(wanted.recipe.average_seeds, start=2):
            # Networks can be averaged where they started alike, and so learned alike what each output means.
            other = {"seed": seed, "init_seed": wanted.recipe.train.get("init_seed", first)}
            refs.append(self._train(wanted, dataset, f"{version}{TRAINED}-{number}", other))
        if len(refs) == 1:
            return refs[0]
        mean = f"{wanted.name}@{version}{AVERAGED}"
        if not self._registered(mean):
            averaging.average(self._database, self._blobs, self._root, refs, dataset.ref, version + AVERAGED)
            self._say(f"{mean} is the mean of {len(refs)} networks")
        return mean

    def _train(self, wanted: Wanted, dataset: Dataset, version: str, other: dict[str, Any]) -> str:
        run, claimed = self._run(wanted, dataset, version, other)
        ref = f"{run.name}@{run.version}"
        if run.state == "finished":
            self._say(f"{ref} is trained already")
            return ref
        self._say(f"run {run.id} makes {ref} from {dataset.ref}")
        self.training = True
        ended = None if claimed is None else self.trainer.carry_out(claimed)
        self.training = False
        if ended is None:
            raise LearningStopped("run_taken", f"another trainer works on run {run.id}: wait for it, or cancel the run")
        if ended.state == "queued":
            raise LearningStopped("run_stopped", "stopped; the same command goes on from the last checkpoint")
        if ended.state != "finished":
            raise LearningStopped(ended.code or ended.state, f"run {ended.id} is {ended.state}: {ended.detail or ''}")
        return ref

    def _run(
        self, wanted: Wanted, dataset: Dataset, version: str, other: dict[str, Any]
    ) -> tuple[TrainingRun, TrainingRun | None]:
        """The run that this command started before, or a new one; and it leased to us, if nobody else works on it.

        Queued and leased in one transaction: a trainer that waits for work cannot be quicker.
        """
        from ml.train_config import from_dict

        name = wanted.name
        settings = {**wanted.recipe.train, **other, "name": name, "version": version}
        if "init" in settings:
            raise RecipeInvalid("train.init: give --init, for it is a file or a model of this machine", "train.init")
        document = from_dict(settings).to_dict()
        with self._database.transaction() as session:
            try:
                run = training.by_name(session, name, version)
            except NotFound:
                run = training.enqueue(session, dataset.id, name, version, document, init=wanted.init)
            # Settings that did not exist when the run began have their defaults.
            config = from_dict({**run.config, "name": name, "version": version}).to_dict()
            for what, here, there in (
                ("pictures", dataset.id, run.dataset_id),
                ("settings", document, config),
                ("start weights", wanted.init, run.init),
            ):
                if here != there:
                    raise Conflict(f"{name}@{version} is made with other {what}: choose another --version.")
            if run.state in ("failed", "cancelled"):
                why = run.detail or run.id
                raise Conflict(f"The run of {name}@{version} is {run.state} ({why}): choose another --version.")
            return run, None if run.state == "finished" else self.trainer.claim(session, run.id)

    def _registered(self, ref: str) -> bool:
        with self._database.transaction() as session:
            try:
                registry.by_ref(session, ref)
            except NotFound:
                return False
            return True

    def _calibrate(self, wanted: Wanted, dataset: Dataset, trained: str, version: str) -> None:
        recipe, groups = wanted.recipe, dataset.summary["groups"]
        if self._registered(f"{wanted.name}@{version}"):
            self._say(f"{wanted.name}@{version} is calibrated already")
            return
        chosen = recipe.calibration.thresholds
        if chosen is None:
            chosen = [name for name, group in groups.items() if group["kind"] == "attributes"]
        made = calibrating.calibrate(
            self._database, self._blobs, self._root, trained, dataset.ref,
            recipe.calibration.split, version,
            wanted_precision=recipe.calibration.precision, thresholds_for=chosen,
            clusters=recipe.evaluation.clusters, rounds=recipe.evaluation.rounds,
            half=recipe.calibration.half_weights, threads=wanted.threads,
        )  # fmt: skip
        self._say(f"{made.ref}: calibrated on {recipe.calibration.split}")

    def _evaluate(self, wanted: Wanted, ref: str, dataset: Dataset, split: str) -> "Evaluation":
        from ml.evaluate import Options

        how = wanted.recipe.evaluation
        found, _ = evaluating.evaluate(
            self._database, self._blobs, self._root, ref, dataset.ref, split, report_to=wanted.report_to,
            options=Options(rounds=how.rounds, clusters=how.clusters), threads=wanted.threads,
        )  # fmt: skip
        self._say(f"{ref}: evaluated on {split}, {found.pictures} pictures")
        return found


def _imported(wanted: Wanted) -> "Imported":
    from ml import importers
    from ml.importers import Column

    source, data = wanted.source, wanted.recipe.data
    if source.is_dir():
        return importers.from_folders(source, name=wanted.name)
    ignore = frozenset(data.ignore)
    groups = {group: Column(column, "exclusive", ignore) for group, column in data.labels.items()}
    groups |= {group: Column(column, "attributes", ignore) for group, column in data.attributes.items()}
    if not groups:
        raise RecipeInvalid("data.labels or data.attributes: say which columns of the table are labels", "data.labels")
    return importers.from_table(
        source, wanted.images or source.parent, groups,
        name=wanted.name, image=data.image, split=data.split or None, group_column=data.by,
    )  # fmt: skip
