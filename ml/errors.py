"""The errors of models: cards, weights, backends, batches. Every one carries a stable `code`; none is about
one picture.
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
    weights_invalid, weights_mismatch, unknown_architecture, tfjs_invalid, tfjs_unexpected.
    """

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(code, detail)
        self.field = field


class BackendError(ModelError):
    """No backend can be used. Codes: backend_unknown, backend_unavailable, backend_disagrees."""


class PredictError(ModelError):
    """No batch can run. Codes: no_models, duplicate_model, out_of_memory, wrong_output_length."""
