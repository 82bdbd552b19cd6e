"""How a network is best run on a machine, as it was measured there. Imports no torch; reads no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from ml.card import Precision

FAMILIES = ("fused", "openvino")


@dataclass(frozen=True, slots=True)
class Choice:
    """`family` and `precision` as in `ml.backends`; `batch`: the most pictures that go through the network at once."""

    family: str
    precision: Precision
    batch: int

    @property
    def name(self) -> str:
        """As a backend names itself."""
        return f"{self.family}-{self.precision}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """What OpenVINO compiles: short batches go through one by one."""
        return tuple(sorted({1, self.batch}))

    def before(self, known: "Sequence[Choice]") -> "list[Choice]":
        """`known`, with this one at its head in the place of its like; as they are where it has none among them."""
        others = [each for each in known if each.name != self.name]
        return [self, *others] if len(others) < len(known) else others

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Choice | None":
        """From a file that somebody else may have written; None for what is no choice."""
        family, precision, batch = (found.get(name) for name in cls.__slots__)
        if family not in FAMILIES or precision not in get_args(Precision):
            return None
        if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 64:
            return None
        return cls(str(family), cast("Precision", precision), batch)
