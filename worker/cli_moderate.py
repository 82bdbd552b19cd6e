"""`tagmill moderate`: single pictures, their verdicts and why, over the HTTP API."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from worker.client import Client

LOOK_S = 0.25
HOLD_S = 20
COLOURS = {"approve": "green", "review": "yellow", "reject": "red"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(rich_help_panel="Use")(moderate)


def moderate(
    pictures: Annotated[list[str], typer.Argument(help="Files, or URLs (http, https).", show_default=False)],
    user: Annotated[str | None, typer.Option(help="Whose pictures they are.")] = None,
    product: Annotated[str | None, typer.Option(help="The product they show.")] = None,
    context: Annotated[str, typer.Option(help="Where they are to be shown: avatar, listing, …")] = "",
    policy: Annotated[str | None, typer.Option(help="The policy; without it, the one assigned.")] = None,
    category: Annotated[str | None, typer.Option(help="What they are declared to show.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the verdicts, all together.")] = 120,
    as_json: Annotated[bool, typer.Option("--json", help="Print each moderation as a line of JSON.")] = False,
) -> None:
    """Have pictures moderated at once, ahead of all jobs, and print each verdict with its reasons.

    Exit code 1 if a picture failed or has no verdict in time; it still gets one, see `GET /v1/moderations/ID`.
    """
    import time

    from worker.home import Home
    from worker.local import client

    said = {"user": user, "product": product, "context": context or None, "policy": policy, "category": category}
    options = {name: text for name, text in said.items() if text is not None}
    bodies = [_body(picture, options) for picture in pictures]
    whole = True
    with client(Home.default()) as api:
        sent = [_send(api, body) for body in bodies]
        until = time.monotonic() + wait
        for picture, moderation in zip(pictures, sent, strict=True):
            answer = _verdict(api, moderation, until)
            whole = whole and answer["verdict"] is not None
            if as_json:
                sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
            else:
                _show(picture, answer)
    if not whole:
        raise typer.Exit(1)


def _body(picture: str, options: dict[str, str]) -> tuple[bytes, str, dict[str, str]]:
    """Body, content type and query of a request; ClientError for a file that is not there."""
    from worker.client import ClientError

    if picture.lower().startswith(("http://", "https://")):
        subject = {name: options[name] for name in ("user", "product") if name in options}
        rest = {name: text for name, text in options.items() if name not in subject}
        body = {"url": picture, **rest, **({"subject": subject} if subject else {})}
        return json.dumps(body).encode(), "application/json", {}
    path = Path(picture)
    if path.is_dir():
        raise ClientError("not_a_file", f"{picture} is a folder: `tagmill submit` takes one")
    try:
        return path.read_bytes(), "application/octet-stream", options
    except OSError as error:
        raise ClientError("no_such_file", f"{picture}: {error.strerror}") from error


def _send(api: "Client", body: tuple[bytes, str, dict[str, str]]) -> dict[str, Any]:
    from uuid import uuid4

    from worker.patience import until_answered

    data, kind, params = body
    key = str(uuid4())
    return until_answered(lambda: api.moderate(data, kind, params=params, wait_s=0, idempotency_key=key))


def _verdict(api: "Client", moderation: dict[str, Any], until: float) -> dict[str, Any]:
    """The moderation when it is no longer pending, or as it is when the time is over."""
    import time
    from functools import partial

    from worker.patience import until_answered

    while moderation["state"] == "pending" and (left := until - time.monotonic()) > 0:
        hold = min(HOLD_S, max(1, int(left)))
        moderation = until_answered(partial(api.moderation, moderation["id"], wait_s=hold))
        if moderation["state"] == "pending":
            time.sleep(LOOK_S)  # the API may have no thread to spare that waits
    return moderation


def _show(picture: str, answer: dict[str, Any]) -> None:
    """The verdict, the picture, and a line for every reason."""
    from worker.screen import console, plain

    screen = console()
    word = answer["verdict"] or answer["state"]
    screen.print(
        f"[{COLOURS.get(word, 'magenta')}]{plain(word):8}[/] {plain(picture)}  [dim]{plain(answer['id'])}[/]",
        soft_wrap=True,
    )
    if answer["code"] is not None:
        detail = f": {plain(answer['detail'])}" if answer["detail"] else ""
        screen.print(f"         {plain(answer['code'])}{detail}", soft_wrap=True)
    for reason in (answer["moderation"] or {}).get("reasons", []):
        screen.print(f"         {_reason(reason)}", soft_wrap=True)
    decision = (answer["moderation"] or {}).get("decision")
    if decision is not None:
        screen.print(f"         decided by a person: {plain(decision['verdict'])}", soft_wrap=True)


def _reason(reason: dict[str, Any]) -> str:
    """`porn_review: Porn 0.41, from 0.3` in rich markup, and the policy's own words."""
    from worker.screen import plain

    words = plain(reason["code"])
    if reason.get("class") is not None and reason.get("score") is not None:
        words += f": {plain(reason['class'])} {reason['score']:.2f}"
        if reason.get("threshold") is not None:
            words += f", from {reason['threshold']:g}"
    return words + (f" [dim]{plain(reason['text'])}[/]" if reason.get("text") else "")
