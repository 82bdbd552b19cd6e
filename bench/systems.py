"""Who takes part in the comparison, how each is started, and which ratios are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.embedded import EmbeddedValkey


@dataclass(frozen=True)
class Places:
    """What the systems are given."""

    model: Path
    postgres: str
    valkey: EmbeddedValkey
    port: int


@dataclass(frozen=True)
class Recipe:
    """`environment`: of bench.peers.environments, or None for the project's own. `share`: of the pictures, where a
    system is too slow for all of them (or, above 1, too slow to start for so few). `fresh`: a process for every round,
    whose start counts. `idles`: it may not be stopped between its turns, and costs little then. `stock`: with Pillow
    and eager torch in place of our decoder and engine; takes part only when it is asked for."""

    label: str
    environment: str | None
    arguments: Callable[[Places], list[str]]
    share: float = 1.0
    fresh: bool = False
    idles: bool = False
    stock: bool = False

    def pictures(self, count: int) -> int:
        """How many pictures a round has for it."""
        return max(1, round(count * self.share))


def _loop(*options: str) -> Callable[[Places], list[str]]:
    return lambda at: ["bench.loop", str(at.model), at.postgres, *options]


def _peer(name: str, *options: str) -> Callable[[Places], list[str]]:
    return lambda at: [f"bench.peers.{name}", str(at.model), *options]


def _tutorial(broker: int, *options: str) -> Callable[[Places], list[str]]:
    return lambda at: ["bench.peers.tutorial", str(at.model), at.postgres, at.valkey.url_of(broker), *options]


SYSTEMS: dict[str, Recipe] = {
    "line": Recipe(
        "Tagmill", None, lambda at: ["bench.peers.tagmill_peer", str(at.port), "--model", str(at.model)], idles=True
    ),
    "loop-same": Recipe("hand-written loop, the same work", "hand", _loop("--same-work")),
    "loop-bare": Recipe("hand-written loop, bare", "hand", _loop()),
    "mosec": Recipe("mosec, 2 + 1 processes", "mosec", _peer("mosec_peer")),
    "mosec-2": Recipe("mosec, 2 + 2 processes", "mosec", _peer("mosec_peer", "--infer", "2")),
    "litserve": Recipe("LitServe, 2 workers", "litserve", _peer("litserve_peer")),
    "ray": Recipe("Ray Data, 2 actors, with its start", "ray", _peer("ray_peer"), share=2.0, fresh=True),
    "mosec-stock": Recipe(
        "mosec, 2 + 2 processes, stock", "mosec", _peer("mosec_peer", "--infer", "2", "--stock"), share=0.2, stock=True
    ),
    "litserve-stock": Recipe(
        "LitServe, 2 workers, stock", "litserve", _peer("litserve_peer", "--stock"), share=0.2, stock=True
    ),
    "ray-stock": Recipe(
        "Ray Data, 2 actors, with its start, stock", "ray", _peer("ray_peer", "--stock"), fresh=True, stock=True
    ),
    "tutorial": Recipe("tutorial, torch's default threads", "tutorial", _tutorial(0), share=0.04),
    "tutorial-1": Recipe("tutorial, one thread each", "tutorial", _tutorial(1, "--threads", "1"), share=0.2),
    "crawl": Recipe("Tagmill's crawler alone", None, lambda at: ["bench.peers.tagmill_peer", str(at.port)], idles=True),
    "img2dataset": Recipe(
        "img2dataset, resize to 384", "img2dataset", lambda at: ["bench.peers.img2dataset_peer"], fresh=True
    ),
}


@dataclass(frozen=True)
class Goal:
    """`ours` : `other`, by the clock (images a second) or, with `cpu`, by CPU (images a core-second); None: no number
    was set, the ratio is to be known. `startless`: without what the other's start costs."""

    name: str
    ours: str
    other: str
    least: float | None
    cpu: bool = False
    startless: bool = False


TODAY = tuple(name for name, recipe in SYSTEMS.items() if not recipe.stock)
"""Who takes part when nobody is named."""
STOCK = ("line", *(name for name, recipe in SYSTEMS.items() if recipe.stock))

GOALS = (
    Goal("the loop that does the same work", "line", "loop-same", 0.80),
    Goal("the bare loop", "line", "loop-bare", 0.55),
    Goal("the tutorial as written", "line", "tutorial", 8.0),
    Goal("the tutorial, one thread each", "line", "tutorial-1", 4.5),
    Goal("mosec, 2 + 1", "line", "mosec", 1.0),
    Goal("mosec, 2 + 2", "line", "mosec-2", None),
    Goal("LitServe", "line", "litserve", 1.0),
    Goal("Ray Data with its start", "line", "ray", 1.0),
    Goal("mosec, 2 + 2, stock", "line", "mosec-stock", 3.2),
    Goal("LitServe, stock", "line", "litserve-stock", 4.0),
    Goal("Ray Data with its start, stock", "line", "ray-stock", 6.0),
    Goal("the crawler alone : img2dataset", "crawl", "img2dataset", None, cpu=True),
    Goal("the crawler alone : img2dataset without its start", "crawl", "img2dataset", 3.0, cpu=True, startless=True),
)
