"""The errors of models: cards, weights, backends, batches. Every one carries a stable `code`; none but
PrepareError is about one picture.
"""


class ModelError(Exception):
    """A model cannot be loaded or run here. `code` is stable, `detail` is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ArtifactError(ModelError):
    """A model artifact that cannot be used; `field` names the card field at fault, if one is.

    Codes: artifact_missing, artifact_too_large, card_invalid, card_mismatch, weights_hash_mismatch,
    weights_invalid, weights_mismatch, unknown_architecture, tfjs_invalid, tfjs_unexpected,
    architecture_not_trainable; of models from elsewhere: see docs/models.md.
    """

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(code, detail)
        self.field = field


class BackendError(ModelError):
    """No backend can be used. Codes: backend_unknown, backend_unavailable, backend_disagrees."""


class QuantiseError(ModelError):
    """A network is not offered in int8. Codes: int8_loses_accuracy, int8_unproven, int8_forbidden, int8_not_possible,
    extra_missing."""


class PredictError(ModelError):
    """No batch can run. Codes: no_models, duplicate_model, out_of_memory, wrong_output_length."""


class PrepareError(Exception):
    """One picture that cannot be prepared; `code` is stable: not_a_working_copy, corrupt_working_copy."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class DatasetError(ModelError):
    """A dataset that cannot be used; `field` names the place at fault, if one is.

    Codes: manifest_missing, manifest_invalid, table_invalid, split_invalid, dataset_changed, dataset_empty,
    label_unknown, class_missing.
    """

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(code, detail)
        self.field = field


class TrainingError(ModelError):
    """A training run that cannot go on. `step` and `checkpoint` say where one may start again.

    Codes: config_invalid, loss_not_finite, out_of_memory, checkpoint_missing, checkpoint_invalid,
    checkpoint_mismatch, rank_died (one of several processes ended or hung; the same run may well go on).
    """

    def __init__(self, code: str, detail: str, *, step: int | None = None, checkpoint: str | None = None) -> None:
        super().__init__(code, detail)
        self.step = step
        self.checkpoint = checkpoint


class TrainingStopped(TrainingError):
    """Training ended at `step` because it was asked to; the checkpoint holds that step. Code: training_stopped."""

    def __init__(self, step: int, checkpoint: str | None) -> None:
        super().__init__("training_stopped", f"asked to stop at step {step}", step=step, checkpoint=checkpoint)
