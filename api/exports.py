"""Writers of the result rows: batches of rows in, bytes out, at flat memory. No database, no request."""

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

from api.answers import json_bytes
from api.schemas import ResultRow
from db.spreadsheets import harmless
from db.tables import Job

Batches = Iterator[list[dict[str, Any]]]

COLUMNS: Final = tuple(ResultRow.model_fields)
NESTED: Final = ("tags", "labels", "moderation", "facts")
ROW_GROUP: Final = 20_000


def json_stream(job: Job, batches: Batches) -> Iterator[bytes]:
    """One object: the job's id, state and total, and all rows."""
    head = json_bytes({"job_id": job.id, "state": job.state, "total": job.total})
    yield head[:-1] + b',"results":['
    comma = b""
    for rows in batches:
        yield comma + b",".join(map(json_bytes, rows))
        comma = b","
    yield b"]}\n"


def ndjson_stream(_: Job, batches: Batches) -> Iterator[bytes]:
    """A row a line."""
    for rows in batches:
        yield b"".join(json_bytes(row) + b"\n" for row in rows)


def csv_stream(_: Job, batches: Batches) -> Iterator[bytes]:
    """RFC 4180 with a header; nested columns as JSON text; absent values as empty cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for rows in batches:
        for row in rows:
            writer.writerow([harmless(cell) for cell in _flat(row)])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def parquet_stream(_: Job, batches: Batches) -> Iterator[bytes]:
    """Parquet with string columns, nested ones as JSON text; about 20,000 rows a row group, ZSTD."""
    import pyarrow as pa  # heavy: 60 MB that only this format needs
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.string()) for name in COLUMNS])
    pipe = _Pipe()
    waiting: list[list[str | None]] = []
    with pq.ParquetWriter(pipe, schema, compression="zstd") as writer:
        for rows in batches:
            waiting += [_flat(row) for row in rows]
            if len(waiting) >= ROW_GROUP:
                writer.write_table(_table(pa, schema, waiting))
                waiting.clear()
                yield pipe.take()
        if waiting:
            writer.write_table(_table(pa, schema, waiting))
    yield pipe.take()


def _table(pa: Any, schema: Any, rows: list[list[str | None]]) -> Any:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=schema)


def _flat(row: dict[str, Any]) -> list[str | None]:
    return [
        json_bytes(row[name]).decode() if name in NESTED and row[name] is not None else row[name] for name in COLUMNS
    ]


class _Pipe(io.RawIOBase):
    """What pyarrow takes for a file: written bytes wait here until they are taken."""

    def __init__(self) -> None:
        self._written = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
