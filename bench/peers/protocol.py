"""How the comparison speaks with a system under test: a process that gets rounds on stdin and answers on stdout.

{"ready": {…}} ─► (round as JSON ─► result as JSON)* ─► end of stdin
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Round:
    """Fetch `count` pictures from the server at `base`; `tag` makes their bytes new."""

    base: str
    names: list[str]
    count: int
    tag: str

    @property
    def urls(self) -> list[str]:
        """The query is appended to a picture's bytes by the server: no two are the same, in no round."""
        names = self.names
        return [f"{self.base}/{names[at % len(names)]}?{self.tag}-{at}" for at in range(self.count)]


@dataclass
class Result:
    """`done`: pictures with a result. `cpu_s`, where the system says itself what it cost. `seconds`: in place of the
    clock around the round. `parts`: anything else worth a row, by name."""

    done: int
    cpu_s: float | None = None
    seconds: float | None = None
    parts: dict[str, float] = field(default_factory=dict)


def serve(work: Callable[[Round], Result], **about: Any) -> None:
    """Answer every round until stdin ends. What anybody else prints goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        with contextlib.suppress(KeyboardInterrupt):
            print(json.dumps({"ready": about}), file=answers, flush=True)
            for line in sys.stdin:
                print(json.dumps(asdict(work(Round(**json.loads(line))))), file=answers, flush=True)
