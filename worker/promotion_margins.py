"""How far a candidate may fall behind, as the operator sets it; without a setting, as `db.promotion` has it."""

import os

from db import promotion
from db.promotion import Margins
from worker.errors import WorkerError


class MarginsInvalid(WorkerError):
    """TAGMILL_GATE_MARGINS cannot be understood."""

    code = "gate_margins_invalid"


def configured() -> Margins:
    """TAGMILL_GATE_MARGINS, as overall=0.01,label=0.05,slice=0.05. Raises MarginsInvalid."""
    try:
        return promotion.margins(os.environ.get("TAGMILL_GATE_MARGINS", ""))
    except ValueError as error:
        raise MarginsInvalid(f"TAGMILL_GATE_MARGINS: {error}") from None
