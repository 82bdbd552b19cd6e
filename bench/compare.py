"""The whole line beside the best hand-written loop and the ways people do it today, in one run, in turn.

python -m bench.compare [--rounds 5] [--count 2000] [--only line loop-same …] [--stock] [--json FILE] [--write]

Every system gets the same photos by URL from one server, whose bytes are new in every round; the same network
(mobilenet_v3_large, random weights) on the same backend (OpenVINO, bf16; the tutorial: eager torch). A round is one
turn of each (A B C, A B C, …), and ratios are taken inside a round. CPU is user and system time of a system's processes
and their children, without the picture server and Postgres. With `--write` the tables go into docs/performance.md.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

from rich.console import Console

from bench import model, report
from bench.peers.environments import NotInstalled, python
from bench.peers.process import Failed, Peer, Turn
from bench.peers.protocol import Round
from bench.pictures import serving
from bench.system import SHARED
from bench.systems import STOCK, SYSTEMS, TODAY, Places, Recipe
from worker.embedded import EmbeddedPostgres, EmbeddedValkey

CACHE = Path.home() / ".cache" / "tagmill-bench"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
WARM = 64


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--count", type=int, default=2000)
    arguments.add_argument("--only", nargs="+", choices=SYSTEMS, metavar="SYSTEM")
    arguments.add_argument("--stock", action="store_true", help="peers with Pillow and eager torch")
    arguments.add_argument("--folder", type=Path, default=SHARED / "data" / "clothing" / "images")
    arguments.add_argument("--cache", type=Path, default=CACHE, help="environments of the peers, and the model")
    arguments.add_argument("--json", type=Path, help="every figure of every round")
    arguments.add_argument("--write", action="store_true", help="the tables into docs/performance.md")
    options = arguments.parse_args()
    console = Console(width=130, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no system outlives us, stopped as most are
    if not options.folder.is_dir():
        raise SystemExit(f"{options.folder} is not there: --folder FOLDER with JPEGs")
    names = sorted(path.name for path in options.folder.iterdir())[: options.count]
    began = time.perf_counter()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagmill-bench-")))
        port = stack.enter_context(serving(options.folder))
        places = Places(
            model=model.provide(options.cache, options.folder),
            postgres=stack.enter_context(EmbeddedPostgres(folder / "postgres")).url,
            valkey=stack.enter_context(EmbeddedValkey(folder / "valkey")),
            port=port,
        )
        run = Run(stack, console, places, options.cache, names, options.count)
        run.start({name: SYSTEMS[name] for name in options.only or (STOCK if options.stock else TODAY)})
        for number in range(options.rounds):
            run.round(number)
    seconds = time.perf_counter() - began
    found = report.Found(
        run.turns, run.missing, options.rounds, options.count, report.machine(), seconds, options.stock
    )
    console.print(*report.tables(found))
    if options.json:
        options.json.write_text(json.dumps(found.as_dict(), indent=1))
    if options.write:
        report.write(PAGE, found)
        console.print(f"written to {PAGE.relative_to(PAGE.parents[1])}")


class Run:
    """The systems that take part, and what they did so far. `missing`: why the others do not."""

    def __init__(
        self, stack: ExitStack, console: Console, places: Places, cache: Path, names: list[str], count: int
    ) -> None:
        self.turns: dict[str, list[Turn]] = {}
        self.missing: dict[str, str] = {}
        self._stack = stack
        self._console = console
        self._places = places
        self._cache = cache
        self._names = names
        self._count = count
        self._commands: dict[str, tuple[Recipe, list[str]]] = {}
        self._running: dict[str, Peer] = {}

    def start(self, recipes: dict[str, Recipe]) -> None:
        """Make the environments, start what stays up, and let each do a few pictures."""
        for name, recipe in recipes.items():
            self._console.print(f"[dim]starting {recipe.label}")
            try:
                own = sys.executable if recipe.environment is None else str(python(self._cache, recipe.environment))
                command = [own, "-m", *recipe.arguments(self._places)]
                self._commands[name] = recipe, command
                if not recipe.fresh:
                    self._running[name] = self._stack.enter_context(Peer(command))
                    self._turn(name, self._asked(name, "warm", min(WARM, recipe.pictures(self._count))))
                self.turns[name] = []
            except NotInstalled as error:
                self._drop(name, f"not installed: {error}")
            except Failed as error:
                self._drop(name, f"does not start: {error}")

    def round(self, number: int) -> None:
        """A turn of each."""
        for name in list(self.turns):
            recipe, command = self._commands[name]
            asked = self._asked(name, f"r{number}", recipe.pictures(self._count))
            try:
                turn = Peer.whole(command, asked) if recipe.fresh else self._turn(name, asked)
                if turn.done != turn.count:
                    raise Failed(f"{turn.done} results of {turn.count} pictures")
            except Failed as error:
                self._drop(name, f"failed in round {number + 1}: {error}")
                continue
            self.turns[name].append(turn)
            self._console.print(
                f"[dim]{number + 1} {recipe.label}: {turn.rate:.0f} images/s, {turn.cpu_ms:.2f} ms of CPU an image"
            )

    def _turn(self, name: str, asked: Round) -> Turn:
        peer = self._running[name]
        with nullcontext() if SYSTEMS[name].idles else peer.awake():
            return peer.turn(asked)

    def _asked(self, name: str, turn: str, count: int) -> Round:
        base = f"http://127.0.0.1:{self._places.port}"
        return Round(base, self._names, count, f"{name}-{turn}")

    def _drop(self, name: str, why: str) -> None:
        self.turns.pop(name, None)
        self.missing[name] = why
        self._console.print(f"[yellow]{SYSTEMS[name].label}: {why}")


if __name__ == "__main__":
    main()
