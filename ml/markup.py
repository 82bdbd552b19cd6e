"""HTML and SVG from function calls; every text is escaped unless it is already Markup. Knows no page."""

from html import escape


class Markup(str):
    """HTML that is safe to put into a page: only `el`, `join` and constants of ours make it."""

    __slots__ = ()


def text(value: str | int | None) -> Markup:
    """`value` as HTML: escaped, unless it is Markup; None is nothing."""
    return value if isinstance(value, Markup) else Markup("" if value is None else escape(str(value)))


def join(*parts: "Markup | str | int | None") -> Markup:
    """The parts one after the other."""
    return Markup("".join(map(text, parts)))


def el(name: str, /, *children: "Markup | str | int | None", **attributes: str | float | None) -> Markup:
    """An element. `class_` is class, `stroke_width` stroke-width; None leaves an attribute out; floats are rounded."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("meta", "img", "line", "rect", "circle", "path", "polyline", "polygon") and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
