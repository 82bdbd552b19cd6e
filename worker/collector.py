"""Python's cyclic garbage collector in a process that serves for hours: it looks at what is new, and less often.

Everything imported and built at the start (some 200,000 objects) lives as long as the process; a crawler made a few
hundred short-lived ones a picture and spent 6 % of its CPU time on looking at all of them again and again.
"""

import gc
from typing import Final

# Python's own are 700, 10 and 10. What a picture leaves is freed by its last reference; cycles are few and small.
THRESHOLDS: Final = (20_000, 20, 20)


def settle() -> None:
    """Call once, when a process has what it keeps: that is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
