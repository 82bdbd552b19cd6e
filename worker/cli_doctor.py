"""`tagmill doctor`: the findings of `worker.doctor` as a list, with exit code 1 if something is broken."""

import typer

MARKS = {"good": "[green]✓[/]", "warning": "[yellow]![/]", "broken": "[red]✗[/]"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Administer")(doctor)


def doctor() -> None:
    """Check database, broker, blob store, disk, networks, models, sandbox, roles and webhooks, and say the remedy."""
    from rich.console import Console
    from rich.markup import escape

    from worker import doctor as checks
    from worker.findings import Finding
    from worker.home import Home
    from worker.local import place
    from worker.service import ServiceError

    screen = Console(highlight=False)
    broken = 0

    def show(finding: Finding) -> None:
        screen.print(f"{MARKS[finding.state]} [bold]{finding.name:<18}[/] {escape(finding.found)}", soft_wrap=True)
        if finding.remedy:
            screen.print(f"  {'':<18} [cyan]→ {escape(finding.remedy)}[/]", soft_wrap=True)

    home = Home.default()
    show(checks.home_folder(home))
    try:
        with place(home, broker=True) as where:
            for finding in checks.examine(where):
                show(finding)
                broken += finding.state == "broken"
    except (ServiceError, OSError) as error:
        # Without them nothing can be asked: the checks of this machine alone would say little.
        theirs = "or set TAGMILL_DATABASE_URL and TAGMILL_BROKER_URL to servers of your own"
        remedies = {"already_running": "stop it, or wait for it, and look again"}
        remedy = remedies.get(getattr(error, "code", ""), f"mend what is said here in {home.root}, {theirs}")
        show(Finding("own servers", "broken", str(error), remedy))
        broken += 1
    if broken:
        screen.print(f"[red]{broken} broken[/]")
        raise typer.Exit(1)
    screen.print("[green]nothing is broken[/]")
