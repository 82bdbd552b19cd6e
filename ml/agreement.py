"""How far a backend's scores may be from the fp32 reference's. Imports no torch; knows no backend."""

from collections.abc import Sequence

from ml.card import Precision

# Largest difference of any score from the reference's, and largest relative L2 difference of the logits, that
# a backend may show on the probe. fp32 differs by the order of sums only (1e-6 measured); bf16 keeps 8 bits
# of mantissa (0.3–0.7 % measured on trained torchvision classifiers; weights that came out of quantisation
# reach 5–11 % and fail).
# int8 is compared with what the same int8 network gave where the evaluation judged it, not with fp32: how far it is
# from fp32 is the evaluation's to judge. Integers are summed exactly, so processors with VNNI agree to the last bit
# (measured: 0 for AVX2 and AVX-512 with VNNI); without it sums saturate and logits are 3–4 % off, which fails.
TOLERANCE: dict[Precision, tuple[float, float]] = {"fp32": (5e-5, 1e-4), "bf16": (2e-2, 2e-2), "int8": (1e-2, 1e-2)}


def agrees(precision: Precision, gap: float, relative: float) -> bool:
    """Whether a backend that is so far from the reference may go live. A NaN is never near."""
    allowed_gap, allowed_relative = TOLERANCE[precision]
    return gap <= allowed_gap and relative <= allowed_relative


def apart(gap: float, relative: float) -> str:
    """The same in words, for one that may not."""
    return f"scores differ by {gap:.2g}, logits by {relative:.2g}"


def turns(pictures: int, sizes: Sequence[int]) -> list[int]:
    """Which pictures of the probe go through at once, so that each batch size that a network is compiled for has its
    turn: all of them, and the first ones again where it takes more."""
    return [at % pictures for at in range(max(pictures, sum(sizes)))]
