"""The errors that query functions raise; each class has a stable `code`, and says nothing of HTTP."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from db.promotion import Gate


class DbError(Exception):
    """Base of what the data layer refuses. `code` is stable and documented; `detail` is for people."""

    code = "db_error"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.code)
        self.detail = detail


class NotFound(DbError):
    """No such row, or it belongs to another account (the two are not told apart)."""

    code = "not_found"


class Conflict(DbError):
    """The row is in a state from which the asked move does not exist."""

    code = "conflict"


class NotAppealable(Conflict):
    """The verdict on the picture is none that an appeal could be against."""

    code = "not_appealable"


class AppealOpen(Conflict):
    """The verdict has an open appeal already."""

    code = "appeal_open"


class PromotionRefused(Conflict):
    """The gate is closed: the candidate falls behind the active version. `shortfalls` says in what."""

    code = "promotion_refused"

    def __init__(self, ref: str, gate: "Gate") -> None:
        shown = [] if gate.missing else [f"  {each}" for each in gate.behind[:10]]
        if shown and len(gate.behind) > len(shown):
            shown.append(f"  … and {len(gate.behind) - len(shown)} more")
        super().__init__("\n".join([f"{ref} is not activated. The gate is {gate}", *shown]))
        self.gate = gate
        self.shortfalls = gate.behind


class Unavailable(DbError):
    """Postgres cannot be reached, gave up on a statement or dropped the connection: try the transaction again.

    After a lost connection at COMMIT it is not known whether the transaction happened.
    """

    code = "database_unavailable"


class BlobsAway(Unavailable):
    """The blob store cannot be asked: it is away, too slow, failing, throttling, or refuses the credentials. No blob is
    at fault; try again."""

    code = "blob_store_unavailable"


class ExtraMissing(DbError):
    """What is configured needs a library that is not installed."""

    code = "extra_missing"


class EmptyJob(DbError):
    code = "empty_job"


class TooManyItems(DbError):
    code = "too_many_items"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A job holds at most {limit} items.")
        self.limit = limit


class EmptyRerun(DbError):
    """No published result matches the selection."""

    code = "empty_rerun"


class BadJournal(DbError):
    """A file is no journal of an erasure."""

    code = "bad_journal"


class BadSelection(DbError):
    """The conditions of a rerun contradict each other or its task."""

    code = "bad_selection"


class BadShadow(DbError):
    """The sample or the end of a shadow run makes no sense; the detail names the field."""

    code = "bad_shadow"


class LeaseLost(DbError):
    """The chunk is no longer leased by this (owner, fence): roll back, write nothing."""

    code = "lease_lost"


class InFlight(DbError):
    """Another transaction holds this idempotency key right now."""

    code = "idempotency_in_flight"


class BadKey(DbError):
    """The presented API key is malformed, unknown, expired or revoked (`reason` for the log only)."""

    code = "invalid_key"

    def __init__(self, reason: str) -> None:
        super().__init__("The API key is not valid.")
        self.reason = reason


class NoOpenBucket(DbError):
    """No bucket with partitions is open for new items; maintenance opens them."""

    code = "no_open_bucket"


class BlobError(DbError):
    """Base of what the blob store refuses."""

    code = "blob_error"


class BlobMissing(BlobError):
    code = "blob_missing"


class BlobTooLarge(BlobError):
    code = "blob_too_large"


class BadBlobKey(BlobError):
    code = "bad_blob_key"
