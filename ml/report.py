"""An evaluation as one HTML file that needs nothing else, and as JSON. Computes no figure.

The page holds its style, its drawings (SVG) and small re-encoded pictures; no script, no font, no link to anywhere, and
its own content security policy says so.
"""

import base64
import json
import os
from pathlib import Path

from ml import images
from ml.evaluation import Evaluation
from ml.markup import Markup, el, join
from ml.report_sections import Thumbnail, group
from ml.report_style import STYLE

HTML_FILE, JSON_FILE = "report.html", "report.json"
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 256, 80
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNREAD_SHOWN = 50


def write(evaluation: Evaluation, folder: Path, root: Path) -> tuple[Path, Path]:
    """report.html and report.json in `folder` (made if missing); pictures are read below `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = _replace(folder / HTML_FILE, render(evaluation, thumbnails(root)))
    return page, _replace(folder / JSON_FILE, as_json(evaluation))


def as_json(evaluation: Evaluation) -> str:
    """The same data, for programs."""
    return json.dumps(evaluation.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def thumbnails(root: Path) -> Thumbnail:
    """Small pictures as data: URIs, decoded under limits and encoded by us: the page holds no byte of an original."""

    def thumbnail(image: str) -> str | None:
        try:
            picture = images.decode((root / image).read_bytes(), images.Limits(draft_short_side=THUMBNAIL_SIDE))
        except (OSError, images.ImageError):
            return None
        data = images.encode_working_copy(picture, THUMBNAIL_SIDE, THUMBNAIL_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"

    return thumbnail


def render(evaluation: Evaluation, thumbnail: Thumbnail) -> str:
    """The whole page; everything that came from outside is escaped."""
    about = evaluation.about
    title = f"{about.model} on {about.dataset}, {about.split}"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        el("title", title),
        el("style", Markup(STYLE)),
    )
    body = el(
        "body",
        el("h1", about.model),
        el("p", f"on {evaluation.pictures:,} pictures of {about.dataset}, split {about.split}", class_="lead"),
        _warnings(evaluation),
        *(group(of, thumbnail) for of in evaluation.groups.values()),
        _unread(evaluation),
        _about(evaluation),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _warnings(evaluation: Evaluation) -> Markup | None:
    """What a reader must know before any figure."""
    flagged = [
        f"{of.column} {of.value} in {name} ({100 * of.gap.value:+.1f} points of accuracy)"
        for name, found in evaluation.groups.items()
        for of in found.slices
        if of.worse
    ]
    said = [f"Served worse than the rest: {'; '.join(flagged)}."] if flagged else []
    if evaluation.unread:
        pictures = "1 picture" if len(evaluation.unread) == 1 else f"{len(evaluation.unread):,} pictures"
        said.append(f"Could not be read: {pictures}, which count nowhere.")
    if evaluation.about.split == "train":
        said.append("These are pictures that the model was trained on: the figures flatter it.")
    return el("div", *(el("p", line) for line in said), class_="note") if said else None


def _unread(evaluation: Evaluation) -> Markup | None:
    if not evaluation.unread:
        return None
    shown = evaluation.unread[:_UNREAD_SHOWN]
    rows = [el("tr", el("td", of.image), el("td", el("code", of.code)), el("td", of.detail)) for of in shown]
    more = len(evaluation.unread) - len(shown)
    return el(
        "section",
        el("h2", "Pictures that could not be read"),
        el("div", el("table", el("tbody", *rows)), class_="wide"),
        el("p", f"… and {more:,} more, in the JSON.", class_="soft") if more else None,
    )


def _about(evaluation: Evaluation) -> Markup:
    about = evaluation.about
    facts = (
        ("Model", about.model), ("Model SHA-256", about.model_sha256),
        ("Dataset", about.dataset), ("Dataset SHA-256", about.data_sha256), ("Split", about.split),
        ("Pictures scored", f"{evaluation.pictures:,}"), ("Pixels", about.pixels), ("Backend", about.backend),
    )  # fmt: skip
    rows = [join(el("dt", name), el("dd", value)) for name, value in facts]
    drawn = "pictures" if about.clusters is None else f"all pictures of one {about.clusters} together"
    said = (
        f"Intervals hold {100 * about.level:g} % of {about.rounds:,} bootstrap resamples (seed {about.seed}), which "
        f"draw {drawn}. They say how far a figure may move on other pictures of the same kind, and nothing about "
        "pictures of another kind. The calibration error's interval leans upwards, for the noise of drawing counts as "
        "error. Temperatures and thresholds look better than they are on the pictures that they were fitted on."
    )
    return el("section", el("h2", "How this was measured"), el("p", said), el("dl", *rows))


def _replace(path: Path, content: str) -> Path:
    """A reader never sees half a file."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path
