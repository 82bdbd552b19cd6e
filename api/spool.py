"""A request body on disk: bounded, hashed, complete before any transaction begins. Parses nothing.

Why on disk: a slow client must not hold a transaction open, and JSON may name the job's options after its items.
The files have no name, so a killed process leaves none behind.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from flask import Request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.errors import Problem
from api.settings import ApiSettings
from db.blob_store import Blobs

READ_SIZE: Final = 256 * 1024


@dataclass(frozen=True)
class Spooled:
    """A whole body. `file` stands at its beginning."""

    file: IO[bytes]
    size: int
    sha256: bytes


@contextmanager
def spooled(blobs: Blobs, request: Request, settings: ApiSettings, max_bytes: int) -> Iterator[Spooled]:
    """The body in a temporary file on the blob store's disk (sized for uploads), gone at the end of the block."""
    digest = hashlib.sha256()
    size = 0
    with blobs.temporary_file() as file:
        for piece in pieces(request, settings, max_bytes):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
        file.seek(0)
        yield Spooled(file, size, digest.digest())


def pieces(request: Request, settings: ApiSettings, max_bytes: int) -> Iterator[bytes]:
    """The body as it arrives. Problems: `body_too_large`, `body_incomplete`, `body_timeout`, `unsupported_encoding`."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported_encoding", "Send the body without Content-Encoding.")
    request.max_content_length = max_bytes
    too_large = Problem("body_too_large", f"This content type may have {max_bytes} bytes at most.")
    cut_off = Problem("body_incomplete", "The body ended before it was complete.")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    # gunicorn lends the socket; a thread must not wait on a silent client for ever.
    socket = request.environ.get("gunicorn.socket")
    before = socket.gettimeout() if socket is not None else None
    until = time.monotonic() + settings.body_total_s
    size = 0
    try:
        if socket is not None:
            socket.settimeout(settings.body_idle_s)
        while piece := request.stream.read(READ_SIZE):
            size += len(piece)
            yield piece
            if time.monotonic() > until:
                raise Problem("body_timeout", f"A body may take {settings.body_total_s:g} s.")
    except RequestEntityTooLarge as error:
        raise too_large from error
    except (ClientDisconnected, OSError, ParseException) as error:
        # werkzeug makes one error of all that a read can raise.
        if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
            raise Problem("body_timeout", f"No byte for {settings.body_idle_s:g} s.") from error
        raise cut_off from error
    # Nobody else compares: a connection that ends early reads like a body that ends.
    if size < (request.content_length or 0):
        raise cut_off
    # Only now: after a failure the time limit also covers what gunicorn still reads of the body.
    if socket is not None:
        socket.settimeout(before)
