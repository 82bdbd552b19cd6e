"""The `tagmill` command: gathers the commands and turns expected failures into one line on stderr."""

import sys

import typer

from worker import (
    cli_accounts,
    cli_audit,
    cli_banks,
    cli_datasets,
    cli_doctor,
    cli_drift,
    cli_erase,
    cli_jobs,
    cli_keys,
    cli_labels,
    cli_learn,
    cli_models,
    cli_moderate,
    cli_policies,
    cli_rerun,
    cli_reviews,
    cli_roles,
    cli_shadow,
    cli_suggest,
    cli_train,
    cli_tune,
    cli_users,
    cli_webhooks,
)

# How a fault says where it is, what helps most first.
PLACES = ("line", "file", "item", "field")
app = typer.Typer(
    name="tagmill",
    help="Self-hosted bulk tagging and moderation of pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_roles.register(app)
cli_jobs.register(app)
cli_moderate.register(app)
cli_learn.register(app)
cli_labels.register(app)
cli_train.register(app)
cli_suggest.register(cli_datasets.app)
app.add_typer(cli_datasets.app, name="datasets", rich_help_panel="Learn")
app.add_typer(cli_drift.app, name="drift", rich_help_panel="Learn")
app.add_typer(cli_accounts.app, name="accounts", rich_help_panel="Administer")
app.add_typer(cli_audit.app, name="audit", rich_help_panel="Administer")
app.add_typer(cli_banks.app, name="banks", rich_help_panel="Administer")
app.add_typer(cli_erase.app, name="erase", rich_help_panel="Administer")
app.add_typer(cli_keys.app, name="keys", rich_help_panel="Administer")
app.add_typer(cli_models.app, name="models", rich_help_panel="Administer")
app.add_typer(cli_policies.app, name="policies", rich_help_panel="Administer")
app.add_typer(cli_rerun.app, name="rerun", rich_help_panel="Administer")
app.add_typer(cli_reviews.app, name="reviews", rich_help_panel="Administer")
app.add_typer(cli_shadow.app, name="shadow", rich_help_panel="Administer")
app.add_typer(cli_users.app, name="users", rich_help_panel="Administer")
app.add_typer(cli_webhooks.app, name="webhooks", rich_help_panel="Administer")
cli_tune.register(app)
cli_doctor.register(app)


def main() -> None:
    """Entry point: exit code 0, 1 for an expected failure, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the top: an expected failure becomes one line, any other keeps its traceback
        if not report(error):
            raise
        sys.exit(1)


def report(error: Exception) -> bool:
    """Print an expected failure; False for one that is a fault of ours and deserves its traceback."""
    from pydantic import ValidationError

    from db.errors import DbError
    from db.policy_rules import PolicyError
    from ml.errors import ModelError
    from worker.client import ApiProblem, ClientError
    from worker.errors import WorkerError
    from worker.screen import console, plain
    from worker.service import ServiceError
    from worker.url_lists import WrongLines

    screen = console(stderr=True)
    if isinstance(error, ValidationError):
        for fault in error.errors():
            name = "TAGMILL_" + "_".join(str(part) for part in fault["loc"]).upper()
            screen.print(f"[red]{plain(name)}[/]: {plain(fault['msg'])}", soft_wrap=True)
        return True
    if not isinstance(error, (ClientError, ServiceError, DbError, ModelError, WorkerError)):
        return False
    if isinstance(error, PolicyError):
        screen.print("[red]This is not a policy[/] [dim](invalid_policy)[/]")
        for each in error.faults:
            screen.print(f"  {plain(each)}", soft_wrap=True)
        return True
    # The API speaks of its parameter; who reads this has an option.
    text = error.detail if isinstance(error, ModelError) else str(error)  # its text has the code in front
    text = text.replace("`on_invalid=skip`", "`--skip-invalid`")
    screen.print(f"[red]{plain(text)}[/] [dim]({plain(error.code)})[/]", soft_wrap=True)
    if isinstance(error, (ApiProblem, WrongLines)):
        for detail in error.errors[:10]:
            place = next((f"{k} {detail[k]}: " for k in PLACES if detail.get(k) is not None), "")
            about = f"{plain(place)}{plain(detail.get('detail', ''))} [dim]({plain(detail.get('code'))})[/]"
            screen.print(f"  {about}", soft_wrap=True)
        if len(error.errors) > 10:
            screen.print(f"  … and {len(error.errors) - 10} more")
    return True


if __name__ == "__main__":
    main()
