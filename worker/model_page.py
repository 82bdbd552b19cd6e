"""What `tagmill models show` prints of a version, from the rows it is given. Reads nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker import shadow_page

if TYPE_CHECKING:
    from rich.console import RenderableType

    from db.learning_tables import ShadowRun
    from db.promotion import Gate
    from db.tables import Evaluation, ModelVersion

SHOWN = 30
HEADLINES = ("accuracy", "macro_f1", "mean_average_precision", "calibration_error")


def render(
    model: "ModelVersion",
    *,
    lineage: Sequence[str],
    evaluated: Sequence[tuple[str, "Evaluation"]],
    current: "ModelVersion | None",
    gate: "Gate",
    shadow: "ShadowRun | None" = None,
) -> "RenderableType":
    """The card, the line of parents, the evaluations, whether the gate is open, and the newest shadow run."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    card = model.card
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    activated = f", since {model.activated_at:%Y-%m-%d %H:%M}" if model.activated_at and model.state == "active" else ""
    table.add_row("model", f"{model.ref}  ({model.task}, {model.state}{activated})")
    table.add_row("weights", f"SHA-256 {model.sha256}")
    preset = card.get("preset", {})
    looks = f", {preset['views']} views where the best score is below {preset['sure']}" if "views" in preset else ""
    table.add_row("network", escape(f"{card.get('architecture', '?')}, {preset.get('name', '?')}{looks}"))
    table.add_row("labels", _labels(card))
    table.add_row("figures", _figures(card))
    table.add_row("licence", escape(str(card.get("licence", "unknown"))))
    table.add_row("source", escape(str(card.get("source", "unknown"))))
    table.add_row("data", str(card.get("data_manifest_sha256") or "unknown"))
    table.add_row("made from", " ← ".join(map(escape, lineage)) or "nothing known")
    table.add_row("gate", _gate(model, current, gate))
    if shadow is not None:
        table.add_row("shadow run", shadow_page.line(shadow))
    shortfalls = [f"  [yellow]{escape(str(shortfall))}[/]" for shortfall in gate.behind[:SHOWN]]
    return Group(table, *shortfalls, *(_evaluation(name, evaluation) for name, evaluation in evaluated))


def _labels(card: dict[str, Any]) -> str:
    """Each group on a line of its own: its labels with their taxonomy ids, in the card's order."""
    from rich.markup import escape

    groups: dict[str, list[str]] = {}
    for label in card.get("labels", ()):
        taxonomy = f" [dim]{escape(label['taxonomy_id'])}[/]" if label.get("taxonomy_id") else ""
        groups.setdefault(label["group"], []).append(escape(label["name"]) + taxonomy)
    lines = []
    for group, names in groups.items():
        more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"{len(names)} of {escape(group)}: {', '.join(names[:SHOWN])}{more}")
    return "\n".join(lines) or "none"


def _figures(card: dict[str, Any]) -> str:
    """The numbers that the card says of itself, with their intervals where it has them."""
    from rich.markup import escape

    lines = [f"{escape(name)} {shown}" for name, shown in _told(card.get("metrics") or {})]
    more = [f"… and {len(lines) - SHOWN} more in its card.json"] if len(lines) > SHOWN else []
    return "\n".join([*lines[:SHOWN], *more]) or "none in the card"


def _told(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The headlines of every evaluated split, as `ml.card_figures` writes it; all numbers of anything else."""
    for split, found in metrics.items():
        if split == "calibration":
            continue  # the error that it leaves is among the headlines
        if not (isinstance(found, Mapping) and "groups" in found):
            yield from _leaves({split: found})
            continue
        for group, content in found["groups"].items():
            figures = {name: content["figures"][name] for name in HEADLINES if name in content["figures"]}
            for name, shown in _leaves(figures):
                yield f"{split}, {group}: {name.replace('_', ' ')}", shown


def _leaves(figures: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in figures.items():
        name = f"{path} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping) and "value" in value:
            low, high = value.get("interval") or (None, None)
            yield name, f"{value['value']:.4g}" + (f" [dim]({low:.4g} – {high:.4g})[/]" if low is not None else "")
        elif isinstance(value, Mapping):
            yield from _leaves(value, name)
        elif isinstance(value, int | float):
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _gate(model: "ModelVersion", current: "ModelVersion | None", gate: "Gate") -> str:
    from rich.markup import escape

    if current is not None and current.id == model.id:
        return "it is the active version"
    return f"[{'green' if gate.open else 'yellow'}]{escape(str(gate))}[/]"


def _evaluation(name: str, evaluation: "Evaluation") -> "RenderableType":
    from rich.markup import escape
    from rich.table import Table

    title = f"{name}, split {evaluation.split}, {evaluation.images} pictures"
    table = Table("metric", "value", title=escape(title), title_justify="left", box=None, header_style="bold")
    overall = {k: v for k, v in evaluation.metrics.items() if k.startswith("overall/")}
    for metric, value in sorted(overall.items())[:SHOWN]:
        table.add_row(escape(metric.removeprefix("overall/")), f"{value:.4f}")
    return table
