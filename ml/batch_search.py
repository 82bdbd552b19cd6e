"""The batch size of a device, found by trying: doubled as long as it is worth it and memory is left. Knows no torch."""

from collections.abc import Callable

LEAST, MOST = 16, 512
WORTH_IT = 1.03  # a batch twice as large has to be faster by so much: it takes memory, and pictures wait longer in it
MARGIN = 0.1  # the share of the device's memory that stays free, for a second look and for other processes


def search(
    measure: Callable[[int], float | None], room: Callable[[], float], *, least: int = LEAST, most: int = MOST
) -> tuple[int, dict[int, float]]:
    """(the size to take, images/s of every size that was tried).

    `measure` gives images/s, None where the size does not fit; `room` the share of memory that is free after it. Where
    not even `least` fits, its half is taken: running out of memory halves further.
    """
    found: dict[int, float] = {}
    best, size = max(1, least // 2), least
    while size <= most:
        speed = measure(size)
        if speed is None:
            break
        before = found.get(best)
        found[size] = speed
        if room() < MARGIN or (before is not None and speed < before * WORTH_IT):
            break
        best, size = size, size * 2
    return best, found
