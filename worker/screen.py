"""The terminal: consoles that print texts as they are, and texts of others made harmless for them."""

import unicodedata

from rich.console import Console
from rich.markup import escape


def console(*, stderr: bool = False) -> Console:
    """A console that neither colours numbers nor turns `:x:` into a picture."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def visible(value: object) -> str:
    """The text with control characters and bytes that are not UTF-8 written out (`\\x1b`), but lines kept."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in ("Cc", "Cs")
        else character.encode("unicode_escape").decode()
        for character in str(value)
    )


def plain(value: object) -> str:
    """Rich markup that shows exactly this text: `[/x]` in a name stays `[/x]`."""
    text = visible(value)
    bare = text.rstrip("\\")
    # Before a tag two backslashes are one, elsewhere they are two; with a tag of our own it is always the first.
    tail = "\\\\" * (len(text) - len(bare)) + "[dim][/dim]" if text != bare else ""
    return escape(bare) + tail


def news(screen: Console, text: object) -> None:
    """A line that says what goes on."""
    screen.print(f"[dim]·[/] {plain(text)}", soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
