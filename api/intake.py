"""From raw rows to the items of a job: each is checked, faults are collected, the limit is kept. Stores nothing."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import ValidationError

from api.bodies import Row
from api.errors import MAX_FAULTS, Fault, Problem, faults_of
from api.schemas import ItemIn, SkippedOut
from db import urls
from db.codes import CODES
from db.jobs import NewItem

OnInvalid = Literal["refuse", "skip"]


class Intake:
    """The items of one submit, once through. After `items()` ended, `skipped()` tells what was left out.

    With `refuse`, one fault refuses the whole job, after at most 100 faults were found; with `skip`, faulty rows
    are left out. The limit counts rows, faulty ones too. `unit` is how the client counts them.
    """

    def __init__(
        self, rows: Callable[[], Iterator[Row]], unit: Literal["line", "item"], on_invalid: OnInvalid, limit: int
    ) -> None:
        self._rows = rows
        self._unit = unit
        self._skip = on_invalid == "skip"
        self._limit = limit
        self._faults: list[Fault] = []
        self._bad_rows = 0

    def items(self) -> Iterator[NewItem]:
        """The good items in order. Problems: `too_many_items`, `invalid_items`, `empty_job`."""
        count = 0
        good = 0
        for place, row in self._rows():
            count += 1
            if count > self._limit:
                raise too_many(self._limit)
            item = None if isinstance(row, Fault) else self._item(place, row)
            if item is not None:
                good += 1
                # Once it is to be refused, storing more is of no use; finding more faults is.
                if self._skip or not self._faults:
                    yield item
                continue
            self._bad_rows += 1
            if isinstance(row, Fault):
                self._note(row.at(self._unit, place))
            if not self._skip and len(self._faults) >= MAX_FAULTS:
                break
        if self._faults and not self._skip:
            raise Problem("invalid_items", "Nothing was accepted; `on_invalid=skip` accepts the others.", self._faults)
        if not good:
            raise Problem("empty_job", "A job needs at least one item.", self._faults)

    def skipped(self) -> SkippedOut | None:
        """None when every row was accepted."""
        if not self._bad_rows:
            return None
        return SkippedOut.model_validate({"count": self._bad_rows, "errors": [fault.row() for fault in self._faults]})

    def _item(self, place: int, row: dict[str, Any]) -> NewItem | None:
        try:
            sent = ItemIn.model_validate(row)
        except ValidationError as error:
            for fault in faults_of(error):
                self._note(fault.at(self._unit, place))
            return None
        code = urls.check(sent.url)
        if code is not None:
            self._note(Fault(code, CODES[code].meaning, field="url").at(self._unit, place))
            return None
        return NewItem(sent.url, None, None, sent.id, sent.product_id, sent.category)

    def _note(self, fault: Fault) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(fault)


def too_many(limit: int) -> Problem:
    """The one wording of the limit on items."""
    return Problem("too_many_items", f"A job may have {limit} items at most.")
