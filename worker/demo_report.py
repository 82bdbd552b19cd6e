"""What the demo shows of a finished job: a table of pictures, the totals, and where to look further."""

from collections import Counter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from worker.home import Home
from worker.live import span
from worker.screen import plain

SHOWN = 20
WIDE = 100  # columns
_VERDICTS = {"approve": "[green]approve[/]", "review": "[yellow]review[/]", "reject": "[red]reject[/]"}


def show(screen: Console, job: dict[str, Any], items: list[dict[str, Any]], seconds: float) -> None:
    """The table and the totals. ``items`` are result rows; ``seconds`` is the whole time from submit to the end."""
    step = max(1, len(items) // SHOWN)
    wide = screen.width >= WIDE
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, header_style="bold", title="Some of the results", title_justify="left"
    )
    table.add_column("picture", no_wrap=True)
    table.add_column("tags")
    table.add_column("colours")
    table.add_column("verdict", no_wrap=True)
    if wide:
        table.add_column("why", no_wrap=True)
    for item in items[::step][:SHOWN]:
        said, why = verdict(item)
        name = plain(short(item["id"], 28 if wide else 24))
        table.add_row(
            name, tags(item, 3 if wide else 2), colours(item, 2 if wide else 1), said, *([why] if wide else [])
        )
    screen.print(table)
    outcomes = job["progress"]["outcomes"]
    done = outcomes.get("done", 0)
    screen.print(
        f"[bold]{done} of {job['total']} pictures done[/] in {span(seconds)}"
        f" ({job['total'] / max(seconds, 0.001):.1f} images/s, start-up of the networks included)"
    )
    for code, count in sorted(job["progress"]["codes"].items()):
        screen.print(f"  [red]{count} failed: {plain(code)}[/]")
    verdicts = Counter(item["moderation"]["verdict"] for item in items if item.get("moderation"))
    if verdicts:
        shown = f"of the first {len(items)}: " if len(items) < job["total"] else ""
        screen.print(
            "Verdicts " + shown + ", ".join(f"{count} {_VERDICTS[name]}" for name, count in verdicts.most_common())
        )
    for task, ref in job["models"].items():
        screen.print(f"Model for {plain(task)}: {plain(ref) if ref else '[yellow]none[/]'}")


def short(name: str, length: int = 24) -> str:
    """A long file name with its middle left out."""
    return name if len(name) <= length else f"{name[: length - 11]}…{name[-10:]}"


def tags(item: dict[str, Any], most: int = 3) -> str:
    """The best tags with their scores, then the attributes (labels that are a group of their own, such as kids)."""
    best = sorted(item["tags"] or [], key=lambda tag: (_attribute(tag), -float(tag["score"])))
    kept = [tag for tag in best if not _attribute(tag)][:most] + [tag for tag in best if _attribute(tag)]
    return ", ".join(f"{plain(tag['label'])} [dim]{tag['score']:.2f}[/]" for tag in kept) or "[dim]–[/]"


def _attribute(tag: dict[str, Any]) -> bool:
    return bool(tag["label"] == tag["group"])


def colours(item: dict[str, Any], most: int = 2) -> str:
    """The colours that cover most of the picture."""
    found = (item.get("facts") or {}).get("colours") or []
    return ", ".join(plain(colour["name"]) for colour in found[:most]) or "[dim]–[/]"


def agreement(screen: Console, items: list[dict[str, Any]], labels: dict[str, str], agreed: str) -> None:
    """In how many of the pictures whose label is known the best tag is that label; nothing if none is."""
    judged = [item for item in items if item["id"] in labels and item["tags"]]
    if not judged:
        return
    right = sum(_best(item) == labels[item["id"]] for item in judged)
    screen.print(f"[bold]{right} of {len(judged)}[/] {agreed}")


def _best(item: dict[str, Any]) -> str | None:
    own = [tag for tag in item["tags"] if not _attribute(tag)]
    return max(own, key=lambda tag: float(tag["score"]))["label"] if own else None


def verdict(item: dict[str, Any]) -> tuple[str, str]:
    """The verdict in colour, and the class that weighed most (or the code of a failure)."""
    if item["outcome"] != "done":
        return f"[red]{item['outcome'] or 'open'}[/]", plain(item["code"] or "")
    moderation = item["moderation"]
    if not moderation:
        return "[dim]–[/]", ""
    scores = moderation["scores"] or {}
    reasons = [str(reason.get("reason") or reason.get("class") or "") for reason in moderation["reasons"]]
    best = max(scores.items(), key=lambda pair: pair[1], default=None)
    top = f"{plain(best[0])} [dim]{best[1]:.2f}[/]" if best else ""
    return _VERDICTS[moderation["verdict"]], top or plain(", ".join(reasons))


def links(screen: Console, url: str, job_id: str, home: Home) -> None:
    """Where everything just shown can be read."""
    screen.print("[bold]Look further[/] (while a system runs on this data)")
    places = {
        "API guide": f"{url}/docs",
        "OpenAPI": f"{url}/openapi.json",
        "this job": f"{url}/v1/jobs/{job_id}",
        "its results": f"{url}/v1/jobs/{job_id}/results?format=csv",
        "API key": str(home.key),
        "log": str(home.log),
    }
    for name, place in places.items():
        screen.print(f"  [dim]{name:<12}[/] {plain(place)}", soft_wrap=True)
