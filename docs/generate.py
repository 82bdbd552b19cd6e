"""Rewrites the tables of these pages that repeat the code: `python docs/generate.py`. Everything else is by hand.

A table stands between `<!-- NAME: made by docs/generate.py -->` and `<!-- end of NAME -->`; tests/architecture
compares pages and code with the functions here.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

FOLDER = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))

from pydantic.fields import FieldInfo  # noqa: E402
from pydantic_settings import BaseSettings  # noqa: E402

from api.app import ROUTES  # noqa: E402
from api.docs import routes as description_routes  # noqa: E402
from api.errors import ERRORS, FAULTS  # noqa: E402
from api.settings import ApiSettings  # noqa: E402
from db.codes import CODES  # noqa: E402
from db.delivery_codes import DELIVERY_CODES  # noqa: E402
from db.outbox import EVENTS  # noqa: E402
from db.settings import StorageSettings  # noqa: E402
from worker.settings import WorkerSettings  # noqa: E402

BLOCK = re.compile(
    r"(?P<begin><!-- (?P<name>[\w-]+): made by docs/generate\.py -->\n).*?(?P<end><!-- end of (?P=name) -->)", re.DOTALL
)
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def settings_table(model: type[BaseSettings], *, without: type[BaseSettings] | None = None) -> str:
    """Variable, default, allowed values and meaning of every field that `without` does not have."""
    known = without.model_fields if without is not None else {}
    fields = {name: field for name, field in model.model_fields.items() if name not in known}
    rows = [
        (f"`{variable(name)}`", _default(field), _allowed(field), field.description or "")
        for name, field in fields.items()
    ]
    return _table(("Variable", "Default", "Allowed", "Meaning"), rows)


def variable(field: str) -> str:
    """The environment variable of a settings field."""
    return f"TAGMILL_{field.upper()}"


def codes_table() -> str:
    """The codes of items."""
    rows = [(f"`{code}`", entry.meaning, "yes" if entry.retryable else "") for code, entry in CODES.items()]
    return _table(("Code", "Meaning", "Retry may help"), rows)


def problems_table() -> str:
    """The codes of problem documents."""
    return _table(
        ("Code", "Status", "Title"), [(f"`{code}`", str(status), title) for code, (status, title) in ERRORS.items()]
    )


def faults_table() -> str:
    """The codes inside a problem document's `errors`."""
    return _table(("Code", "Meaning"), [(f"`{code}`", meaning) for code, meaning in FAULTS.items()])


def deliveries_table() -> str:
    """The codes of tries of webhooks."""
    return _table(("Code", "Meaning"), [(f"`{code}`", meaning) for code, meaning in DELIVERY_CODES.items()])


def events_table() -> str:
    """What webhooks tell."""
    return _table(("Event", "When"), [(f"`{event}`", meaning) for event, meaning in EVENTS.items()])


def routes_table() -> str:
    """Every operation of the API with the scope it needs."""
    rows = []
    for operation in (operation for group in (*ROUTES, description_routes) for operation in group.operations):
        scope = "public" if operation.scope is None else f"`{operation.scope}`"
        if operation.open_by is not None:
            scope += f", or public by `{variable(operation.open_by)}`"
        rows.append((operation.method, f"`{path(operation.path)}`", scope, operation.summary))
    return _table(("Method", "Path", "Scope", "What it does"), rows)


def path(rule: str) -> str:
    """A rule of the URL map as readers know it: `/v1/jobs/{job_id}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


TABLES: dict[str, Callable[[], str]] = {
    "settings-storage": lambda: settings_table(StorageSettings),
    "settings-api": lambda: settings_table(ApiSettings, without=StorageSettings),
    "settings-worker": lambda: settings_table(WorkerSettings, without=StorageSettings),
    "item-codes": codes_table,
    "problem-codes": problems_table,
    "fault-codes": faults_table,
    "delivery-codes": deliveries_table,
    "events": events_table,
    "routes": routes_table,
}


def rendered(page: str) -> str:
    """The page with its tables made anew; KeyError for a table that is not known."""
    return BLOCK.sub(lambda found: found["begin"] + TABLES[found["name"]]() + found["end"], page)


def pages() -> list[Path]:
    """The pages that hold made tables."""
    return [page for page in sorted(FOLDER.glob("*.md")) if BLOCK.search(page.read_text(encoding="utf-8"))]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value == "" or value == []:
        return "unset"
    if isinstance(value, list):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{option}`" for option in get_args(field.annotation))
    bounds = [
        f"{sign} {getattr(item, name)}" for item in field.metadata for name, sign in _BOUNDS if hasattr(item, name)
    ]
    return ", ".join(bounds)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    for each in pages():
        each.write_text(rendered(each.read_text(encoding="utf-8")), encoding="utf-8")
        print(each.relative_to(FOLDER.parent))
