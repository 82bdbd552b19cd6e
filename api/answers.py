"""JSON on the wire: one way to write it, so that an answer and its replay are the same bytes. Knows no resource."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response
from pydantic import BaseModel


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def json_bytes(value: Any, *, sort: bool = False) -> bytes:
    """UTF-8 JSON without spaces; NaN and infinity raise ValueError, for they are not JSON."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort)
    return text.encode()


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, sort: bool = False
) -> Response:
    """A response of content type application/json."""
    body = json_bytes(value, sort=sort) + b"\n"
    return Response(body, status, dict(headers or {}), content_type="application/json")
