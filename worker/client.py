"""The HTTP client behind the `tagmill` commands: typed calls, problem documents as exceptions; draws nothing."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx2

from worker.retry import parse_retry_after

Body = Callable[[], Iterable[bytes]]
FORMATS = {".jsonl": "ndjson", ".ndjson": "ndjson", ".csv": "csv", ".parquet": "parquet", ".json": "json"}
FINAL_STATES = ("finished", "cancelled")
PASSING = (502, 503, 504)  # Postgres is away for a moment, or a proxy does not find the API


class ClientError(Exception):
    """A command cannot go on; the text says why and what to do. ``code`` is stable.

    ``passing``: the same call may well succeed soon, after ``retry_after_s`` if the API said so.
    """

    passing = False
    retry_after_s: float | None = None

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ApiProblem(ClientError):
    """The API refused: an RFC 9457 problem document. ``errors`` names the wrong fields, lines or items."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.passing = status in PASSING or document.get("code") == "rate_limited"
        self.retry_after_s = retry_after_s
        self.errors: list[dict[str, Any]] = list(document.get("errors") or [])
        title, detail = str(document.get("title") or f"HTTP {status}"), str(document.get("detail") or "")
        super().__init__(str(document.get("code") or "http_error"), _sentences(title, detail))


class Unreachable(ClientError):
    """No answer from the API; trying again later may help."""

    passing = True

    def __init__(self, url: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        super().__init__("unreachable", f"No answer from {url} ({reason}). Is it running? `tagmill up` starts it.")


class Client:
    """Calls to one Tagmill API with one key. Every method raises ApiProblem or Unreachable; `ready` needs no key."""

    def __init__(self, url: str, key: str | None, *, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ClientError("bad_url", f"TAGMILL_URL must start with http:// or https://, not {url!r}")
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"User-Agent": "tagmill-cli"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(timeout_s, connect=10.0),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(
        self, body: Body, content_type: str, *, params: Mapping[str, str], idempotency_key: str, attempts: int = 5
    ) -> dict[str, Any]:
        """POST a job as a stream. ``body()`` is called anew for each attempt, under the same Idempotency-Key.

        What passes is tried again, later and later. ``attempts`` 1 for a body that can be read only once.
        """
        headers = {"Content-Type": content_type, "Idempotency-Key": idempotency_key}
        for attempt in range(1, attempts + 1):
            try:
                return self._json("POST", "/v1/jobs", params=params, headers=headers, content=body(), timeout=900.0)
            except ClientError as error:
                if not (error.passing or error.code == "idempotency_in_flight") or attempt == attempts:
                    raise
                pause = max(2.0 * attempt, error.retry_after_s or 0.0)
            time.sleep(pause)
        raise AssertionError("unreachable")

    def job(self, job_id: str) -> dict[str, Any]:
        """One job with its progress."""
        return self._json("GET", _path(job_id))

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs."""
        page = self._json("GET", "/v1/jobs", params={"limit": str(limit)})
        found: list[dict[str, Any]] = page["jobs"]
        return found

    def cancel(self, job_id: str) -> dict[str, Any]:
        return self._json("POST", _path(job_id, "/cancel"))

    def retry(self, job_id: str, only: list[str]) -> dict[str, Any]:
        """Put failed items back; ``only`` these codes, or all that failed."""
        return self._json("POST", _path(job_id, "/retry"), json={"only": only} if only else {})

    def moderate(
        self, body: bytes, content_type: str, *, params: Mapping[str, str], wait_s: int, idempotency_key: str
    ) -> dict[str, Any]:
        """Send one picture for moderation and hold on for its verdict; the answer may still be `pending`."""
        headers = {"Content-Type": content_type, "Idempotency-Key": idempotency_key, "Prefer": f"wait={wait_s}"}
        options = {"params": params, "headers": headers, "content": body, "timeout": wait_s + 60.0}
        return self._json("POST", "/v1/moderations", **options)

    def moderation(self, moderation_id: str, *, wait_s: int) -> dict[str, Any]:
        """An upload, held back while it is `pending` for up to so many seconds."""
        path = f"/v1/moderations/{quote(moderation_id, safe='')}"
        return self._json("GET", path, headers={"Prefer": f"wait={wait_s}"}, timeout=wait_s + 60.0)

    def items(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        """The first result rows of a job."""
        page = self._json("GET", _path(job_id, "/items"), params={"limit": str(limit)})
        rows: list[dict[str, Any]] = page["items"]
        return rows

    def labels(self, item_id: str) -> dict[str, Any]:
        """What people say of an item's picture, and what they said before."""
        return self._json("GET", _item_path(item_id, "/labels"))

    def label(self, item_id: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Say what is in an item's picture; what counts now."""
        return self._json("PUT", _item_path(item_id, "/labels"), json=dict(said))

    def label_many(self, body: Body) -> dict[str, Any]:
        """The same of many items, as NDJSON: how many were taken, and what is wrong with which lines."""
        headers = {"Content-Type": "application/x-ndjson"}
        return self._json("POST", "/v1/labels", headers=headers, content=body(), timeout=900.0)

    def ready(self) -> bool:
        """True if the API says it can serve."""
        try:
            return self._http.get("/readyz", timeout=5.0).status_code == 200
        except httpx2.TransportError:
            return False

    @contextmanager
    def results(self, job_id: str, form: str) -> Iterator[Iterator[bytes]]:
        """All results as a stream of bytes in the given format (json, ndjson, csv, parquet)."""
        try:
            with self._http.stream(
                "GET", _path(job_id, "/results"), params={"format": form}, timeout=300.0
            ) as response:
                if response.status_code != 200:
                    response.read()
                    raise _problem(response)
                yield response.iter_bytes()
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    def save_results(self, job_id: str, out: Path) -> int:
        """Write all results to ``out`` (format by its ending), whole or not at all; returns its bytes."""
        part = out.with_name(f".{out.name}.part")
        try:
            with self.results(job_id, form_of(out)) as stream, open(part, "wb") as file:
                for piece in stream:
                    file.write(piece)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
        return out.stat().st_size

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Any other call; {} for an answer without a body."""
        return self._json(method, path, **options)

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error
        if response.status_code >= 400:
            raise _problem(response)
        if response.status_code == 204:
            return {}
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise ClientError("bad_answer", f"{self.url} did not answer with JSON: is it Tagmill?") from None
        return answer


def form_of(out: Path) -> str:
    """The results format for a file's ending; ClientError for an unknown one."""
    try:
        return FORMATS[out.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMATS)
        raise ClientError("bad_format", f"{out.name}: the ending must be one of {known}") from None


def _path(job_id: str, part: str = "") -> str:
    """Where a job is; an id of other people's making stays one step of it."""
    return f"/v1/jobs/{quote(job_id, safe='', errors='surrogateescape')}{part}"


def _item_path(item_id: str, part: str = "") -> str:
    return f"/v1/items/{quote(item_id, safe='', errors='surrogateescape')}{part}"


def _sentences(title: str, detail: str) -> str:
    """Title and detail, but not the same words twice."""
    return detail if detail.startswith(title) else f"{title}. {detail}".strip()


def _problem(response: httpx2.Response) -> ApiProblem:
    try:
        document = response.json()
    except ValueError:
        document = {}
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"), time.time())
    return ApiProblem(response.status_code, document if isinstance(document, dict) else {}, retry_after_s)
