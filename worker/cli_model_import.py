"""The command that brings a model in: a folder that was exported, or a foreign file with what it does not say."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from worker.foreign_models import Found
    from worker.local import Place
    from worker.model_import import Said
    from worker.model_store import Pulled

ACTOR = "cli"
SCALES: dict[str, tuple[list[float], list[float]]] = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "0..1": ([0.0] * 3, [1.0] * 3),
    "-1..1": ([0.5] * 3, [0.5] * 3),
    "0..255": ([0.0] * 3, [1 / 255] * 3),
}
CARD, PIXELS, OUTPUT = "What it is", "What it is given", "What it gives"

_Source = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An ONNX or Keras file (.keras, .h5), or an exported folder.")
]
_Name = Annotated[str | None, typer.Option(help="Its name here, a-z, 0-9, . _ -", rich_help_panel=CARD)]
_Version = Annotated[str, typer.Option(help="Its version.", rich_help_panel=CARD)]
_Task = Annotated[Literal["tags", "moderation"] | None, typer.Option(help="What it is for.", rich_help_panel=CARD)]
_Labels = Annotated[
    Path | None,
    typer.Option(help="Its labels in the order of its outputs: one a line, JSON, or CSV with a column name.",
                 rich_help_panel=CARD),
]  # fmt: skip
_Group = Annotated[str, typer.Option(help="The group of labels that name none.", rich_help_panel=CARD)]
_Licence = Annotated[str, typer.Option(help="Its licence.", rich_help_panel=CARD)]
_From = Annotated[str | None, typer.Option(help="Where it is from.", rich_help_panel=CARD)]
_Preset = Annotated[
    Literal["whole", "imagenet", "nsfwjs"],
    typer.Option(help="whole: squashed to the size; imagenet: centre crop; nsfwjs: as TensorFlow.js resizes.",
                 rich_help_panel=PIXELS),
]  # fmt: skip
_Size = Annotated[int | None, typer.Option(help="Side of the pictures, if open.", min=1, rich_help_panel=PIXELS)]
_Scale = Annotated[
    str | None,
    typer.Option(help=f"How pixels become numbers: {', '.join(SCALES)}.", metavar="SCALE", rich_help_panel=PIXELS),
]
_Mean = Annotated[
    str | None, typer.Option(help="Instead: red,green,blue in 0…1; (pixel/255 − mean)/std.", rich_help_panel=PIXELS)
]
_Std = Annotated[str | None, typer.Option(help="With --mean: red,green,blue.", rich_help_panel=PIXELS)]
_Channels = Annotated[Literal["RGB", "BGR"], typer.Option(help="Order of the channels.", rich_help_panel=PIXELS)]
_Layout = Annotated[
    Literal["NCHW", "NHWC"] | None,
    typer.Option(help="Where the channels are; without it, told by the file.", rich_help_panel=PIXELS),
]
_Head = Annotated[
    list[str] | None,
    typer.Option(help="softmax (one label of a group) or sigmoid (any number); or GROUP=softmax, repeated.",
                 metavar="HEAD", rich_help_panel=OUTPUT),
]  # fmt: skip
_OutputIs = Annotated[
    Literal["probabilities", "logits"] | None,
    typer.Option(help="Without it, told by what comes out.", rich_help_panel=OUTPUT),
]
_Activate = Annotated[bool, typer.Option("--activate", help="Make it the one that new jobs use.")]


def import_(
    model: _Source, name: _Name = None, version: _Version = "1", task: _Task = None, labels: _Labels = None,
    group: _Group = "category", licence: _Licence = "unknown", source: _From = None, preset: _Preset = "whole",
    size: _Size = None, scale: _Scale = None, mean: _Mean = None, std: _Std = None, channels: _Channels = "RGB",
    layout: _Layout = None, head: _Head = None, output_is: _OutputIs = None, activate: _Activate = False,
) -> None:  # fmt: skip
    """Install and register a model as a candidate: an exported folder, an ONNX file or a Keras file.

    A foreign file needs --name, --task, --labels, --head and --scale (or --mean and --std): it does not say them. It is
    first read and run in a locked-in process.
    """
    from worker import foreign_models
    from worker.cli_keys import owners_place

    found = foreign_models.look(model)
    said = None
    if found.kind == "artifact":
        if name or task or labels or head or scale or mean or std or output_is or layout or size:
            raise typer.BadParameter("an exported folder says all this itself, in its card.json", param_hint="MODEL")
    else:
        given = {"--name": name, "--task": task, "--labels": labels, "--head": head, "--scale": scale or (mean and std)}
        if missing := [option for option, value in given.items() if not value]:
            raise typer.BadParameter("the file does not say it itself", param_hint=" ".join(missing))
        assert labels is not None
        assert head is not None
        card = {
            "name": name, "version": version, "task": task, "head": _heads(head), "licence": licence,
            "source": source or model.name, "preset": _preset(preset, scale, mean, std),
        }  # fmt: skip
        said = _said(card, labels, group, channels=channels, layout=layout, size=size, outputs=output_is)
    with owners_place() as where:
        _register(where, _installed(where.model_root, found, said), activate=activate)


def _said(card: dict[str, Any], labels: Path, group: str, **how: Any) -> "Said":
    from worker import foreign_labels
    from worker.model_import import Said

    return Said({**card, "labels": foreign_labels.read(labels, group)}, **how)


def _installed(model_root: Path, found: "Found", said: "Said | None") -> "Pulled":
    """The model in its place; a foreign one is tried out and made into an artifact before."""
    from worker import model_bundle, model_import

    if said is None:
        model_import.verify(found.path)
        return model_bundle.bring(model_root, found.path)
    with tempfile.TemporaryDirectory(prefix="tagmill-import-") as folder:
        model_import.make(found, said, Path(folder) / "new")
        return model_bundle.bring(model_root, Path(folder) / "new")


def _register(where: "Place", brought: "Pulled", *, activate: bool) -> None:
    from db import registry

    with where.database() as database, database.transaction() as session:
        model = registry.install_model(session, brought.card, brought.sha256)
        if activate:
            model = registry.activate(session, brought.name, brought.version, actor=ACTOR)
        typer.echo(f"{model.ref} for {model.task}: {model.state}, in {brought.folder}")
        if about := model.card.get("onnx"):
            typer.echo(_about(model.card, about))


def _about(card: dict[str, Any], onnx: dict[str, Any]) -> str:
    """What was found out about a foreign file, for whoever knows what it should be."""
    size, labels = card["preset"]["size"], len(card["labels"])
    return (
        f"{onnx.get('format', 'ONNX')}: {size}×{size} {onnx['channels']} in {onnx['layout']}, {labels} labels as "
        f"{onnx['outputs']}; the conversion and the runtimes differ by at most {onnx.get('gap', 0):.1g}"
    )


def _heads(given: list[str]) -> str | dict[str, str]:
    """One activation for all groups, or GROUP=ACTIVATION for each; the card's check knows both."""
    kinds = ("softmax", "sigmoid")
    if len(given) == 1 and given[0] in kinds:
        return given[0]
    heads: dict[str, str] = {}
    for word in given:
        group, equals, kind = word.rpartition("=")
        if not equals or not group or kind not in kinds or group in heads:
            raise typer.BadParameter(
                f"{word!r}: expected softmax, sigmoid, or GROUP=… once a group", param_hint="--head"
            )
        heads[group] = kind
    return heads


def _preset(name: str, scale: str | None, mean: str | None, std: str | None) -> dict[str, Any]:
    if name == "nsfwjs":
        if scale != "0..1" or mean or std:
            raise typer.BadParameter("the preset nsfwjs scales to 0..1 and to nothing else", param_hint="--scale")
        return {"name": name}
    if scale is None:
        assert mean is not None
        assert std is not None
        return {"name": name, "mean": _three(mean, "--mean"), "std": _three(std, "--std")}
    if mean or std:
        raise typer.BadParameter("give --scale, or --mean and --std", param_hint="--scale")
    if scale.replace("…", "..") not in SCALES:
        raise typer.BadParameter(f"{scale!r} is none of {', '.join(SCALES)}", param_hint="--scale")
    means, stds = SCALES[scale.replace("…", "..")]
    return {"name": name, "mean": means, "std": stds}


def _three(text: str, option: str) -> list[float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected three numbers, red,green,blue", param_hint=option) from None
    return [red, green, blue]
