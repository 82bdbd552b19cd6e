"""What an import found, in the terminal: counts, what was left out and why, what looks wrong. Decides nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from worker.screen import console, counted, plain

if TYPE_CHECKING:
    from ml.importers import Report
    from ml.manifest import Manifest
    from ml.splits import Leak

SHOWN = 10


def show(made: "Manifest", report: "Report", leaks: "Sequence[Leak]", notes: Sequence[str] = ()) -> None:
    """All that there is to say of an import, on stderr."""
    screen = console(stderr=True)
    screen.print(counts(made.counts()))
    _unreadable(screen, report.unreadable)
    if report.unlabelled:
        screen.print(f"{counted(len(report.unlabelled), 'picture')} without any label left out")
    for note in notes[:SHOWN]:
        screen.print(plain(note), soft_wrap=True)
    _more(screen, len(notes))
    screen.print(
        f"{len(report.unreadable)} unreadable, {counted(len(report.exact_duplicates), 'set')} of equal pictures,"
        f" {counted(len(report.near_duplicates), 'pair')} of near-duplicates",
        soft_wrap=True,
    )
    _doubtful(screen, report)
    screen.print(f"[{'red' if leaks else 'green'}]{counted(len(leaks), 'leak')} between splits[/]")
    for leak in leaks[:SHOWN]:
        where = ", ".join(f"{images[0]} ({split}, {len(images)})" for split, images in leak.images.items())
        screen.print(f"  {plain(leak.kind)} {plain(leak.value[:60])}: {plain(where)}", soft_wrap=True)
    _more(screen, len(leaks))


def counts(table_of: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Any:
    """Pictures by group, label and split."""
    names = sorted({split for labels in table_of.values() for by_split in labels.values() for split in by_split})
    table = Table("group", "label", *map(plain, names), box=None, header_style="bold")
    for group, labels in table_of.items():
        for name, by_split in labels.items():
            table.add_row(plain(group), plain(name), *(str(by_split.get(split, 0)) for split in names))
    return table


def _unreadable(screen: Console, unreadable: Mapping[str, str]) -> None:
    for image, code in list(unreadable.items())[:SHOWN]:
        screen.print(f"[yellow]left out[/] {plain(image)} ({plain(code)})", soft_wrap=True)
    if len(unreadable) > SHOWN:
        by_code = ", ".join(f"{code} {count}" for code, count in Counter(unreadable.values()).most_common())
        screen.print(f"  … and {len(unreadable) - SHOWN} more; in all {plain(by_code)}", soft_wrap=True)


def _doubtful(screen: Console, report: "Report") -> None:
    """What training will refuse, or what it would learn wrongly."""
    for group, label in report.without_picture:
        screen.print(f"[yellow]no picture[/] of {plain(group)} {plain(label)}: it cannot be learned", soft_wrap=True)
    for group in report.one_label:
        screen.print(f"[yellow]one label[/] in group {plain(group)}: there is nothing to tell apart", soft_wrap=True)
    for first, other in report.conflicts[:SHOWN]:
        screen.print(f"[yellow]alike, labelled otherwise[/] {plain(first)} and {plain(other)}", soft_wrap=True)
    _more(screen, len(report.conflicts))


def _more(screen: Console, number: int) -> None:
    if number > SHOWN:
        screen.print(f"  … and {number - SHOWN} more")
