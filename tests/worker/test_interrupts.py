"""Commands that signals end: their `finally` runs, and the exit code is theirs wherever the signal came."""

import signal
import subprocess
import sys

import pytest

STOPPED_IN = """
import os, signal
from worker import interrupts

interrupts.on(signal.SIGTERM, signal.SIGINT)
try:
    {statement}
except KeyboardInterrupt:
    pass
finally:
    interrupts.ignore(signal.SIGTERM, signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned up")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("statement", ["os.kill(os.getpid(), {0})", "exec('os.kill(os.getpid(), {0})')"])
def test_a_stop_that_was_caught_is_no_crash(number: signal.Signals, statement: str) -> None:
    """exec: where an import makes a dataclass, say."""
    code = STOPPED_IN.format(statement=statement.format(int(number)))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "cleaned up\n", ended.stderr
    assert ended.returncode == 0
