"""How entries of hash banks, what they match and what is wrong with a list look in a terminal; reads no database."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from db.bank_rows import Row
    from db.bank_search import Match
    from db.bank_tables import Entry

SHOWN: Final = 10
STATES: Final = {"on": "green", "off": "dim", "expired": "dim", "quarantined": "red", "wide": "yellow"}
VERDICTS: Final = {"approve": "green", "review": "yellow", "reject": "red"}


def show(entry: "Entry") -> None:
    """One entry: its hash whole, to be copied, and below it what is known of it."""
    from worker.screen import console, plain

    screen = console()
    screen.print(f"[bold]{entry.hash}[/] [{STATES[entry.state]}]{entry.state}[/]", soft_wrap=True)
    said = [str(entry.id), f"{entry.created_at:%Y-%m-%d %H:%M}", f"by {entry.actor}"]
    said += [f"found {entry.wide:,} of the pictures there were"] if entry.state == "wide" else []
    said += [entry.reason] if entry.reason else []
    said += [f"from {entry.source}"] if entry.source else []
    said += [f"until {entry.expires_at:%Y-%m-%d %H:%M}"] if entry.expires_at else []
    said += [f"for {entry.share:.0%} of pictures"] if entry.share < 1 else []
    screen.print(f"  [dim]{plain(' · '.join(said))}[/]", soft_wrap=True)


def show_matches(count: int, found: "Sequence[Match]") -> None:
    """How many pictures match, and the newest of them."""
    from rich.table import Table

    from db.ids import item_id
    from worker.screen import console, counted

    screen = console()
    if not count:
        screen.print("It matches no picture.")
        return
    verb = "matches" if count == 1 else "match"
    screen.print(f"{counted(count, 'picture')} {verb}" + (f"; the newest {len(found)}:" if count > len(found) else ":"))
    table = Table("item", "bits", "seen", "verdict", box=None, header_style="bold")
    for match in found:
        item = "–" if match.job_id is None or match.seq is None else item_id(match.job_id, match.seq)
        verdict = f"[{VERDICTS[match.verdict]}]{match.verdict}[/]" if match.verdict else "–"
        table.add_row(item, str(match.distance), f"{match.seen_at:%Y-%m-%d %H:%M}", verdict)
    screen.print(table)


def name_wrong(rows: "Sequence[Row]", unit: str) -> None:
    """The first lines or items that were left out, with the reason."""
    from worker.screen import console, counted, plain

    screen = console(stderr=True)
    for row in rows[:SHOWN]:
        place = f"{unit} {row.place}: " + (f"{row.name}: " if row.name else "")
        screen.print(f"  {plain(place + row.detail)} [dim]({plain(row.code)})[/]", soft_wrap=True)
    if len(rows) > SHOWN:
        screen.print(f"  … and {len(rows) - SHOWN} more")
    screen.print(f"[red]{counted(len(rows), f'wrong {unit}')} left out[/]")
