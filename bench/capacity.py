"""What so many images a month need, from measured unit costs: remakes the table of docs/capacity.md.

python -m bench.capacity [--cores 16] [--busy 0.6] [--keep-months 3] [--price core_hour=0.04 …] [--write]

Unit costs are in bench/unit_costs.json, each with the command that measured it. Prices are parameters; their defaults
are assumptions, no offers.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.tables import markdown, placed

COSTS = Path(__file__).with_name("unit_costs.json")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "capacity.md"
MONTH_S = 30 * 86_400
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
VOLUMES = (10**6, 10**8, 10**10)
PRICES = {"core_hour": 0.04, "gb_month_ssd": 0.10, "gb_month_object": 0.02, "gb_in": 0.0}
"""Dollars, assumed: a core of a rented machine, with its 4 GB, for an hour; a GB of disk and of an object store for a
month; a GB received."""


@dataclass(frozen=True)
class Assumed:
    """`cores` of a machine; `busy`: the share of them that is planned with, so that peaks and a lost machine fit;
    `peak`: the busiest hour by the mean; `keep_months`: how long rows and working copies stay."""

    cores: int = 16
    busy: float = 0.6
    peak: float = 2.0
    keep_months: float = 3.0
    database_cores: int = 64
    network_gbit: float = 10.0
    disk_tb: float = 16.0


@dataclass(frozen=True)
class Need:
    """What one volume asks for."""

    images: int
    rate: float
    crawlers: float
    workers: float
    database: float
    machines: int
    rows_tb: float
    blobs_tb: float
    gbit: float
    dollars_per_1000: float
    bottleneck: str


def unit_costs() -> dict[str, float]:
    """The measured values by name."""
    return {name: float(cost["value"]) for name, cost in json.loads(COSTS.read_text(encoding="utf-8"))["costs"].items()}


def need(images: int, cost: Mapping[str, float], assumed: Assumed, prices: Mapping[str, float]) -> Need:
    """What so many images a month need; cores at the peak, storage in a steady state."""
    rate = images / MONTH_S
    peak = rate * assumed.peak
    cores = {
        "crawlers": peak * (cost["ingest_ms"] + cost["api_ms"]) / 1000 / assumed.busy,
        "workers": peak * cost["infer_ms"] / 1000 / assumed.busy,
        "database": peak * cost["postgres_ms"] / 1000 / assumed.busy,
    }
    kept = images * assumed.keep_months
    rows, blobs = kept * cost["row_bytes"], kept * cost["working_copy_bytes"]
    gbit = peak * (cost["fetched_bytes"] + 2 * cost["working_copy_bytes"]) * 8 / 1e9
    # The smallest installation is one machine; crawlers and workers share machines, Postgres has its own above one.
    shared = math.ceil((cores["crawlers"] + cores["workers"]) / assumed.cores)
    alone = sum(cores.values()) <= assumed.cores
    machines = 1 if alone else shared + math.ceil(cores["database"] / assumed.database_cores)
    paid = sum(cores.values()) if alone else machines * assumed.cores
    month = (
        max(paid, 1.0) * prices["core_hour"] * MONTH_S / 3600
        + rows / 1e9 * prices["gb_month_ssd"]
        + blobs / 1e9 * prices["gb_month_object"]
        + images * cost["fetched_bytes"] / 1e9 * prices["gb_in"]
    )
    # How far each limit is used that one more machine of the same kind does not lift.
    used = {
        "Postgres's disk": rows / (assumed.disk_tb * 1e12),
        "Postgres's cores": cores["database"] / assumed.database_cores,
        "the network of one machine, shared by all": gbit / (assumed.network_gbit * max(machines, 1)),
    }
    first = max(used, key=lambda name: used[name])
    by_cores = max(("crawlers", "workers"), key=lambda name: cores[name])
    limit = first if used[first] > 1 else f"cores of the {by_cores}"
    times = f" ({used[first]:.1f} of what one has)" if used[first] > 1 else ""
    return Need(
        images, rate, cores["crawlers"], cores["workers"], cores["database"], machines, rows / 1e12, blobs / 1e12, gbit,
        1000 * month / images, limit + times,
    )  # fmt: skip


def table(needs: list[Need]) -> str:
    """As Markdown, a column a volume."""
    rows = {
        "images/s, mean": [f"{each.rate:,.1f}" for each in needs],
        "cores of crawlers, at the peak": [f"{each.crawlers:,.2f}" for each in needs],
        "cores of workers, at the peak": [f"{each.workers:,.2f}" for each in needs],
        "cores of Postgres, at the peak": [f"{each.database:,.2f}" for each in needs],
        "machines": [f"{each.machines:,}" for each in needs],
        "rows kept, TB": [f"{each.rows_tb:,.3f}" for each in needs],
        "working copies kept, TB": [f"{each.blobs_tb:,.2f}" for each in needs],
        "Gbit/s at the peak, all machines": [f"{each.gbit:,.2f}" for each in needs],
        "dollars per 1,000 images": [f"{each.dollars_per_1000:.4f}" for each in needs],
        "first bottleneck": [each.bottleneck for each in needs],
    }
    heads = [f"10{str(round(math.log10(each.images))).translate(SUPERSCRIPT)} images a month" for each in needs]
    return markdown(["", *heads], [[name, *cells] for name, cells in rows.items()])


def page_part(assumed: Assumed, prices: Mapping[str, float]) -> str:
    """What stands between the markers: the table, its assumptions, the unit costs."""
    cost = unit_costs()
    known = json.loads(COSTS.read_text(encoding="utf-8"))
    made = table([need(images, cost, assumed, prices) for images in VOLUMES])
    made += "\nAssumed: " + ", ".join(f"{name} {value:g}" for name, value in vars(assumed).items())
    made += "; prices in dollars: " + ", ".join(f"{name} {value:g}" for name, value in prices.items()) + ".\n"
    measured = [(one["what"], f"{one['value']:g} {one['unit']}", one["command"]) for one in known["costs"].values()]
    made += f"\nMeasured on {known['machine']}:\n\n"
    return made + markdown(("unit cost", "value", "measured by"), measured)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Assumed()).items():
        arguments.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments.add_argument("--price", action="append", default=[], metavar="NAME=DOLLARS", help=", ".join(PRICES))
    arguments.add_argument("--write", action="store_true", help="into docs/capacity.md")
    options = arguments.parse_args()
    prices = dict(PRICES)
    for given in options.price:
        name, _, value = given.partition("=")
        if name not in prices:
            arguments.error(f"there is no price {name!r}: {', '.join(PRICES)}")
        prices[name] = float(value)
    made = page_part(Assumed(**{name: getattr(options, name) for name in vars(Assumed())}), prices)
    print(made)
    if options.write:
        PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), "capacity", made), encoding="utf-8")


if __name__ == "__main__":
    main()
