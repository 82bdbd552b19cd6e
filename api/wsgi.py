"""What gunicorn loads: `api.wsgi:app`, made when it is first asked for, so that importing needs no settings."""

from functools import cache
from typing import Any

from flask import Flask

from api.app import create_app


@cache
def _app() -> Flask:
    return create_app()


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(name)
