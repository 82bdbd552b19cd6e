"""How numbers, times and codes stand on a page. Filters of the templates; each gives text or escaped markup."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def number(value: float | None) -> str:
    """1234567 → 1 234 567, with narrow spaces that do not break."""
    if value is None:
        return "–"
    whole = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"
    return whole.replace(",", "\u202f")


def percent(value: float | None, digits: int = 1) -> str:
    """0.123 → 12.3 %"""
    return "–" if value is None else f"{100 * value:.{digits}f}\u202f%"


def size(value: float | None) -> str:
    """Bytes in steps of 1000."""
    if value is None:
        return "–"
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f}\u202f{unit}" if unit == "B" or value >= 100 else f"{value:.1f}\u202f{unit}"
        value /= 1000
    raise AssertionError


def duration(seconds: float | None) -> str:
    """In the two largest units."""
    if seconds is None:
        return "–"
    seconds = max(0.0, float(seconds))
    if seconds < 1:
        return "under 1\u202fs"
    if seconds < 60:
        return f"{seconds:.0f}\u202fs"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs" if rest and minutes < 10 else f"{minutes}\u202fmin"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}\u202fh {minutes}\u202fmin" if minutes else f"{hours}\u202fh"
    return f"{hours // 24} days"


def when(value: datetime | None) -> Markup | str:
    """A moment, in UTC, to the minute."""
    if value is None:
        return "–"
    moment = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%Y-%m-%d %H:%M}")


def ago(value: datetime | None) -> Markup | str:
    """How long ago a moment was; the moment itself is its title."""
    if value is None:
        return "–"
    moment = value.astimezone(UTC)
    gone = datetime.now(UTC) - moment
    if gone < timedelta(seconds=45):
        words = "just now"
    elif gone < timedelta(days=7):
        words = f"{max(1, gone.seconds // 60)}\u202fmin ago" if gone < timedelta(hours=1) else _hours(gone)
    else:
        words = f"{moment:%Y-%m-%d}"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S}", words
    )


def moment(value: str) -> str:
    """An ISO 8601 text, to the minute."""
    return value[:16].replace("T", " ")


def _hours(gone: timedelta) -> str:
    hours = int(gone.total_seconds() // 3600)
    return f"{hours}\u202fh ago" if hours < 48 else f"{hours // 24} days ago"


def short(value: Any, length: int = 12) -> str:
    """The first characters of an id or hash."""
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}…"


def words(value: str) -> str:
    """A code as people read it: `too_small` → too small."""
    return value.replace("_", " ")


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "number": number,
    "percent": percent,
    "size": size,
    "duration": duration,
    "when": when,
    "ago": ago,
    "moment": moment,
    "short": short,
    "words": words,
}
