"""`tagmill moderate`: single pictures, their verdicts and why, over the HTTP API."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from worker.client import Client, ClientError

LOOK_S = 0.25
HOLD_S = 20
AT_ONCE = 16
"""Pictures that are asked after in one look."""
OF_PICTURE = ("no_such_file", "not_a_file", "no_picture", "file_too_large", "body_too_large")
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

    A picture that cannot be taken is told as `failed`, and the others go on. Exit code 1 if a picture failed or has no
    verdict in time; one that was sent still gets it, see `GET /v1/moderations/ID`. Ctrl-C says what was sent: 130.
    """
    import time

    from worker.client import ClientError
    from worker.home import Home
    from worker.local import client

    said = {"user": user, "product": product, "context": context or None, "policy": policy, "category": category}
    options = {name: text for name, text in said.items() if text is not None}
    with client(Home.default()) as api:
        run = _Run(api, as_json=as_json)
        try:
            for picture in pictures:
                run.send(picture, options)
                run.look()
            until = time.monotonic() + wait
            while run.pending and (left := until - time.monotonic()) > 0:
                run.look(hold=max(1, int(min(HOLD_S if len(run.pending) == 1 else 1, left))))
                if run.pending:
                    time.sleep(LOOK_S)  # the API may have no thread to spare that waits
        except KeyboardInterrupt:
            run.stopped("Stopped", len(pictures))
            raise typer.Exit(130) from None
        except ClientError:
            if len(pictures) > 1:  # what is wrong is told by whoever catches it
                run.stopped(f"Stopped at {picture}" if run.told < len(pictures) else "Stopped", len(pictures))
            raise
        run.leave()
    if run.decided < len(pictures):
        raise typer.Exit(1)


class _Run:
    """Pictures on their way: what was sent, what waits, what was told. Prints each as soon as there is something."""

    def __init__(self, api: "Client", *, as_json: bool) -> None:
        self._api = api
        self._as_json = as_json
        self.pending: list[tuple[str, dict[str, Any]]] = []
        self.told = 0
        self.sent = 0
        self.decided = 0

    def send(self, picture: str, options: dict[str, str]) -> None:
        """Send one; ClientError for what would be wrong with every other one too."""
        from worker.client import ClientError

        try:
            moderation = _send(self._api, _body(picture, options))
        except ClientError as error:
            if not _is_of_picture(error):
                raise
            self._tell(picture, {"id": None, "state": "failed", "verdict": None, "code": error.code} | _said(error))
            return
        self.sent += 1
        self.pending.append((picture, moderation))

    def look(self, hold: float = 0) -> None:
        """Ask for the oldest of what waits, the first one held by the API for `hold` seconds, and tell what ended."""
        from functools import partial

        from worker.patience import until_answered

        left = []
        for n, (picture, before) in enumerate(self.pending[:AT_ONCE]):
            found = before
            if found["state"] == "pending":
                found = until_answered(partial(self._api.moderation, before["id"], wait_s=0 if n else int(hold)))
            if found["state"] == "pending":
                left.append((picture, found))
            else:
                self._tell(picture, found)
        self.pending[:AT_ONCE] = left

    def leave(self) -> None:
        """Tell of what still waits that it does."""
        for picture, moderation in self.pending:
            self._tell(picture, moderation)
        self.pending = []

    def stopped(self, why: str, count: int) -> None:
        """Tell how far it came, on stderr after what waits."""
        self.leave()
        typer.echo(f"{why}: {self.sent} of {count} sent, {self.decided} have a verdict; the others get it.", err=True)

    def _tell(self, picture: str, answer: dict[str, Any]) -> None:
        self.told += 1
        self.decided += answer["verdict"] is not None
        if not self._as_json:
            _show(picture, answer)
            return
        named = answer if answer["id"] else {"picture": picture, **answer}
        sys.stdout.write(json.dumps(named, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def _is_of_picture(error: "ClientError") -> bool:
    """Whether it is this picture that is wrong, and another one may be taken."""
    from worker.client import ApiProblem

    fields = {each.get("field") for each in error.errors} if isinstance(error, ApiProblem) else set()
    return error.code in OF_PICTURE or (error.code == "invalid_body" and fields == {"url"})


def _said(error: "ClientError") -> dict[str, Any]:
    from worker.client import ApiProblem

    faults = error.errors if isinstance(error, ApiProblem) else []
    return {"detail": " ".join([str(error), *(str(each.get("detail")) for each in faults)])}


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


def _show(picture: str, answer: dict[str, Any]) -> None:
    """The verdict, the picture, its moderation and its item, and a line for every reason."""
    from worker.screen import console, plain

    screen = console()
    word = answer["verdict"] or answer["state"]
    ids = f"  [dim]{plain(answer['id'])}  item {plain(answer['item_id'])}[/]" if answer["id"] else ""
    screen.print(f"[{COLOURS.get(word, 'magenta')}]{plain(word):8}[/] {plain(picture)}{ids}", soft_wrap=True)
    if answer["code"] is not None:
        detail = f": {plain(answer['detail'])}" if answer["detail"] else ""
        screen.print(f"         {plain(answer['code'])}{detail}", soft_wrap=True)
    for reason in (answer.get("moderation") or {}).get("reasons", []):
        screen.print(f"         {_reason(reason)}", soft_wrap=True)
    decision = (answer.get("moderation") or {}).get("decision")
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
