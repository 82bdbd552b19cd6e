"""A settled process: what it has is never looked at again, what is new and cyclic is still freed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: what is frozen stays so.
SCRIPT = """
import gc, weakref
from worker import collector

class Node:
    pass

kept = [Node() for _ in range(1000)]
collector.settle()
assert gc.get_freeze_count() > 1000
assert not any(each is kept for each in gc.get_objects())

node = Node()
node.itself = node
seen = weakref.ref(node)
del node
rest = [[] for _ in range(2 * collector.THRESHOLDS[0])]
assert seen() is None, "a cycle was left"
"""


def test_what_was_there_is_left_alone_and_new_cycles_are_freed() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
